"""What the model says about itself, as the child reads it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tiny_detector import HEADS, LABELS, NET_WH, tiny_metadata, write_tiny_model
from vault_ml.detector_child import heads_and_labels, load
from vault_ml.detector_host import DetectorOptions
from vault_ml.detector_wire import Ready
from vault_ml.errors import ModelError
from vault_ml.yolo.metadata import METADATA_HEADS, METADATA_LABELS


def test_model_says_how_to_read_it() -> None:
    assert heads_and_labels(tiny_metadata(), Path("m.onnx")) == (HEADS, LABELS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(METADATA_HEADS, None, id="no-heads"),
        pytest.param(METADATA_HEADS, '{"a": 1}', id="heads-of-another-kind"),
        pytest.param(METADATA_HEADS, "[1", id="heads-cut-off"),
        pytest.param(METADATA_LABELS, None, id="no-labels"),
        pytest.param(METADATA_LABELS, "5", id="labels-of-another-kind"),
        pytest.param(METADATA_LABELS, "[5]", id="labels-that-are-numbers"),
    ],
)
def test_model_that_does_not_say_is_refused(name: str, value: str | None) -> None:
    metadata = tiny_metadata()
    if value is None:
        del metadata[name]
    else:
        metadata[name] = value
    with pytest.raises(ModelError, match=r"m\.onnx does not say how .* vault-ml convert"):
        heads_and_labels(metadata, Path("m.onnx"))


def test_loads_warms_up_and_tells_the_parent(tmp_path: Path) -> None:
    options = asdict(DetectorOptions(device="cpu", threads=1))
    _, ready = load(write_tiny_model(tmp_path / "tiny.onnx"), options, print)
    assert (ready.labels, ready.net_wh) == (LABELS, NET_WH)
    assert 0 < ready.run_s < 5
    assert Ready.parse(json.loads(json.dumps(ready.pack()))) == ready
