"""The child, in this process: what it reads from the model, what it answers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tiny_detector import HEADS, LABELS, NET_WH, picture, share, tiny_metadata, write_tiny_model
from vault_ml import detector_child
from vault_ml.child import Channel
from vault_ml.detector_child import head_and_labels, load
from vault_ml.detector_host import DetectorOptions
from vault_ml.detector_wire import Picture, Ready
from vault_ml.errors import DetectorUnavailable, ModelError
from vault_ml.inference.onnx_runtime import OnnxRuntime
from vault_ml.yolo.metadata import METADATA_HEADS, METADATA_LABELS


def test_model_says_how_to_read_it() -> None:
    assert head_and_labels(tiny_metadata(), Path("m.onnx")) == (HEADS, LABELS)


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
        head_and_labels(metadata, Path("m.onnx"))


def test_loads_warms_up_and_tells_the_parent(tmp_path: Path) -> None:
    options = asdict(DetectorOptions(device="cpu", threads=1))
    _, ready = load(write_tiny_model(tmp_path / "tiny.onnx"), options, print)
    assert (ready.labels, ready.net_wh) == (LABELS, NET_WH)
    assert 0 < ready.run_s < 5
    assert Ready.parse(json.loads(json.dumps(ready.pack()))) == ready


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Channel]:
    """Our end of the channel to a `main` that runs in a thread of this process."""
    ours, theirs = socket.socketpair()
    channel, other = Channel(ours), Channel(theirs)
    monkeypatch.setattr(detector_child, "connect", lambda: (other, []))
    thread = threading.Thread(target=detector_child.main)
    thread.start()
    yield channel
    channel.close()
    thread.join(20)
    assert not thread.is_alive(), "it outlived its parent"
    other.close()


def start(parent: Channel, model: Path) -> dict[str, Any]:
    options = asdict(DetectorOptions(device="cpu", threads=1))
    parent.send({"type": "start", "model": str(model), "options": options}, timeout_s=20)
    return parent.receive(timeout_s=20)[0]


def test_parent_that_leaves_at_once_ends_it(parent: Channel) -> None:
    parent.close()


def test_looks_answers_pings_and_ends_with_its_parent(parent: Channel, tmp_path: Path) -> None:
    assert start(parent, write_tiny_model(tmp_path / "tiny.onnx"))["type"] == "ready"
    parent.send({"type": "ping"}, timeout_s=20)
    assert parent.receive(timeout_s=20)[0] == {"type": "pong"}
    shared, frames = share([picture(), picture((3, 2))])
    with shared:
        pictures = [Picture(1, frames[1].letterbox).pack()]
        look = {"type": "look", "request": 7, "pictures": pictures}
        parent.send(look, [shared.fd], timeout_s=20)
        message, _ = parent.receive(timeout_s=20)
    assert (message["type"], message["request"], message["position"]) == ("seen", 7, 0)
    assert [round(side) for side in message["xyxy"][0]] == [20, 16, 36, 24]


def test_refuses_what_it_cannot_load(parent: Channel, tmp_path: Path) -> None:
    answer = start(parent, tmp_path / "gone.onnx")
    assert (answer["type"], answer["kind"]) == ("refused", "model")
    assert "gone.onnx is not there" in answer["why"]


def test_device_that_fails_altogether_is_fatal(
    parent: Channel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert start(parent, write_tiny_model(tmp_path / "tiny.onnx"))["type"] == "ready"

    def fail(*_: object) -> None:
        raise DetectorUnavailable("the GPU fell off the bus")

    monkeypatch.setattr(OnnxRuntime, "infer", fail)
    shared, frames = share([picture()])
    with shared:
        pictures = [Picture(0, frames[0].letterbox).pack()]
        parent.send({"type": "look", "request": 0, "pictures": pictures}, [shared.fd], timeout_s=20)
        failed, fatal = (parent.receive(timeout_s=20)[0] for _ in range(2))
    assert (failed["type"], fatal["type"]) == ("failed", "fatal")
    assert failed["why"] == fatal["why"] == "the GPU fell off the bus"
