"""Models of other projects through the whole product: detect, check, explain, one worker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import SHARED, shared_file
from e2e.stand import Stand, recording_name, wait_for
from e2e.test_commands import rows, vault_ml
from foreign_models import BOX, NET_WH, write_model
from vault_ml.demo.worker_process import free_port

pytestmark = pytest.mark.timeout(300)

STREET = "video/vtest_6s_768x576_10fps.mp4"


def red_photo(path: Path, scale: int = 2) -> Path:
    """Of the shape of the input, so that no bars are added."""
    pixels = np.zeros((NET_WH[1] * scale, NET_WH[0] * scale, 3), np.uint8)
    pixels[:, :, 2] = 255
    cv2.imwrite(str(path), pixels)
    return path


@pytest.mark.parametrize("family", ["yolov8", "yolov5", "yolox", "end2end"])
def test_detect_sees_the_known_box_in_the_colours_of_the_family(
    family: str, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "mine.onnx", family)
    if family == "yolox":
        (tmp_path / "mine.names").write_text("cat\ndog\nbird\n")
    done = vault_ml(
        "detect", "--json", "--model", model, red_photo(tmp_path / "red.png"),
        CACHE_DIR=str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (frame,) = rows(done.stdout)[0]["frames"]
    (seen,) = frame["detections"]
    # Red is the first channel of RGB and the last of BGR; the end-to-end model calls it a dog.
    assert seen["label"] == {"yolox": "bird", "end2end": "dog"}.get(family, "cat")
    np.testing.assert_allclose(seen["box"], np.array(BOX) * 2, atol=0.1)


def test_refused_model_says_what_was_seen_and_what_would_do(tmp_path: Path) -> None:
    model = write_model(tmp_path / "mine.onnx", "yolov8", sides=(96, 96))
    done = vault_ml("detect", "--model", model, red_photo(tmp_path / "red.png"))
    assert done.returncode == 2
    assert "mine.onnx: this ONNX model cannot be used: its output fits no known head" in done.stderr
    assert "output0 float32 (?, 7, 62)" in done.stderr
    assert "Accepted are" in done.stderr
    assert "Traceback" not in done.stderr


def test_explain_tells_family_input_and_classes(tmp_path: Path) -> None:
    model = write_model(tmp_path / "mine.onnx", "yolov8")
    done = vault_ml("models", "explain", model)
    assert done.stdout.startswith("mine: yolov8, 64x48, 3 classes\n")
    assert "RGB from 0 to 1, float32, the frame in the middle between bars of 114" in done.stdout
    done = vault_ml("models", "explain", "--json", shared_file("models/onnx/yolox_nano.onnx"))
    found = json.loads(done.stdout)
    assert (found["family"], found["input_wh"], len(found["labels"])) == ("yolox", [416, 416], 80)
    assert found["placing"] == {"fill": 114, "is_centred": False, "is_rounded": False}


def test_check_runs_the_model_and_names_it(tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    done = vault_ml(
        "check", "--json", QUEUE_NAME="q", KAFKA_BROKER=nowhere,
        MODEL=str(shared_file("models/onnx/yolox_nano.onnx")), CACHE_DIR=str(tmp_path),
        VAULT_API_URL=f"http://{nowhere}", VAULT_ACCESS_KEY="a", VAULT_SECRET_KEY="s",
    )  # fmt: skip
    by_name = {row["check"]: row for row in rows(done.stdout)}
    assert by_name["model"]["ok"], done.stdout
    assert "yolox_nano (yolox) at 416x416 (square) runs on" in by_name["model"]["message"]


@pytest.mark.slow
def test_a_worker_publishes_what_yolox_saw(stand: Stand) -> None:
    results = stand.reader(stand.target)
    worker = stand.worker(MODEL=str(shared_file("models/onnx/yolox_nano.onnx")))
    stand.store(recording_name(1), shared_file(STREET).read_bytes())
    wait_for(lambda: len(results.messages) == 1, 120, f"a result; {worker.output()}")
    (document,) = results.documents()
    seen = [label for frame in document["data"]["labels"] for label in frame]
    assert {"person", "car"} <= set(seen)
    assert len(seen) > 20
    for frame in document["data"]["boxes"]:
        assert all(0 <= x1 < x2 <= 768 and 0 <= y1 < y2 <= 576 for x1, y1, x2, y2 in frame)
    assert worker.stop() == 0


@pytest.mark.slow
def test_yolox_finds_what_its_authors_say_it_finds(tmp_path: Path) -> None:
    """AP50 .574 was measured with these photos and weights by an independent program."""
    data = shared_file("images/coco_val_by27")
    done = vault_ml(
        "detect", "--json", "--confidence", "0.005", "--model",
        shared_file("models/onnx/yolox_nano.onnx"), data / "images", CACHE_DIR=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scored = subprocess.run(
        [sys.executable, SHARED / "tools/ap50.py", data,
         shared_file("models/yolov3-tiny/coco.names")],
        input=done.stdout, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    scores = dict(part.split("=") for part in scored.stdout.split())
    assert float(scores["AP50"]) >= 0.56, scored.stdout
