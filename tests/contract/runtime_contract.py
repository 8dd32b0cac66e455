"""What every inference runtime must do. A new runtime inherits this class and gives `runtime`."""

from __future__ import annotations

import numpy as np
import pytest

from tiny_detector import NET_WH, picture
from vault_ml.detector import to_tensor
from vault_ml.inference.port import InferenceRuntime


def some_images(n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    w, h = NET_WH
    return np.random.default_rng(7).random((n, 3, h, w), dtype=np.float32)


class RuntimeContract:
    """Inherit, and define a fixture `runtime` that loads the tiny detector's model."""

    def test_computes_the_network(self, runtime: InferenceRuntime) -> None:
        (output,) = runtime.infer(to_tensor(picture((3, 2))[None]))
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
            pytest.param(np.zeros((0, 3, 48, 64), np.float32), id="none"),
            pytest.param(np.zeros((3, 48, 64), np.float32), id="no-batch-axis"),
            pytest.param(np.zeros((1, 3, 64, 48), np.float32), id="sides-swapped"),
            pytest.param(np.zeros((1, 1, 48, 64), np.float32), id="grey"),
            pytest.param(np.zeros((1, 3, 48, 64), np.float64), id="float64"),
            pytest.param(np.zeros((1, 3, 48, 64), np.uint8), id="bytes"),
        ],
    )
    def test_refuses_what_is_not_a_batch_of_its_size(
        self, runtime: InferenceRuntime, images: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    ) -> None:
        with pytest.raises(ValueError, match="images"):
            runtime.infer(images)

    def test_says_what_runs(self, runtime: InferenceRuntime) -> None:
        assert runtime.info.runtime.split()[1][0].isdigit()
        assert runtime.info.device
        assert runtime.info.precision in {"fp32", "fp16", "int8"}

    def test_closes_twice_and_runs_no_more(self, runtime: InferenceRuntime) -> None:
        runtime.close()
        runtime.close()
        with pytest.raises(ValueError, match="closed"):
            runtime.infer(some_images(1))
