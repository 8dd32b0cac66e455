"""What every inference runtime must do. A new runtime inherits this class and gives `runtime`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tiny_detector import NET_WH, picture
from vault_ml.inference.port import InferenceRuntime


def some_images(n: int) -> NDArray[np.uint8]:
    w, h = NET_WH
    return np.random.default_rng(7).integers(0, 256, (n, h, w, 3), dtype=np.uint8)


class RuntimeContract:
    """Inherit, and define a fixture `runtime` that loads the tiny detector's model."""

    def test_computes_the_network(self, runtime: InferenceRuntime) -> None:
        (output,) = runtime.infer(picture((3, 2))[None])
        assert output.shape == (1, 16, 6, 8)
        assert output.dtype == np.float32
        objectness = output[0, 4]
        assert objectness[2, 3] == pytest.approx(20, abs=1e-3)
        assert (np.delete(objectness.ravel(), 2 * 8 + 3) < -19.9).all()

    def test_repeats_itself_to_the_last_bit(self, runtime: InferenceRuntime) -> None:
        images = some_images(3)
        first = [output.copy() for output in runtime.infer(images)]
        for _ in range(5):
            for before, after in zip(first, runtime.infer(images), strict=True):
                np.testing.assert_array_equal(before, after)

    @pytest.mark.parametrize("n", [1, 2, 5])
    def test_result_does_not_depend_on_who_shares_the_batch(
        self, runtime: InferenceRuntime, n: int
    ) -> None:
        images = some_images(n)
        (together,) = runtime.infer(images)
        assert together.shape[0] == n
        for index in range(n):
            (alone,) = runtime.infer(images[index : index + 1])
            np.testing.assert_allclose(together[index], alone[0], rtol=1e-5, atol=1e-5)

    def test_input_is_left_alone(self, runtime: InferenceRuntime) -> None:
        images = some_images(2)
        before = images.copy()
        runtime.infer(images)
        np.testing.assert_array_equal(images, before)

    @pytest.mark.parametrize(
        "images",
        [
            pytest.param(np.zeros((0, 48, 64, 3), np.uint8), id="none"),
            pytest.param(np.zeros((48, 64, 3), np.uint8), id="no-batch-axis"),
            pytest.param(np.zeros((1, 64, 48, 3), np.uint8), id="sides-swapped"),
            pytest.param(np.zeros((1, 48, 64, 1), np.uint8), id="grey"),
            pytest.param(np.zeros((1, 32, 64, 3), np.uint8), id="smaller"),
            pytest.param(np.zeros((1, 48, 64, 3), np.float32), id="float32"),
        ],
    )
    def test_refuses_what_is_not_a_batch_of_its_size(
        self, runtime: InferenceRuntime, images: NDArray[Any]
    ) -> None:
        with pytest.raises(ValueError, match="pixels"):
            runtime.infer(images)

    def test_says_what_runs(self, runtime: InferenceRuntime) -> None:
        assert runtime.info.runtime.split()[1][0].isdigit()
        assert runtime.info.device
        assert runtime.info.precision in {"fp32", "fp16", "int8"}

    def test_answers_many_threads_as_one(self, runtime: InferenceRuntime) -> None:
        images = some_images(24)
        alone = [runtime.infer(image[None])[0] for image in images]
        with ThreadPoolExecutor(runtime.lanes) as pool:
            together = list(pool.map(lambda image: runtime.infer(image[None])[0], images))
        for before, after in zip(alone, together, strict=True):
            np.testing.assert_array_equal(before, after)

    def test_an_answer_stays_when_the_next_one_comes(self, runtime: InferenceRuntime) -> None:
        first, second = some_images(2)
        (kept,) = runtime.infer(first[None])
        before = kept.copy()
        runtime.infer(second[None])
        np.testing.assert_array_equal(kept, before)

    def test_closes_twice_and_runs_no_more(self, runtime: InferenceRuntime) -> None:
        runtime.close()
        runtime.close()
        with pytest.raises(ValueError, match="closed"):
            runtime.infer(some_images(1))
