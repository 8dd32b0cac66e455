"""The commands as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import SHARED, shared_file
from e2e.stand import bare_environment
from encrypted_files import encrypted
from vault_ml.demo.worker_process import free_port
from vault_ml.geometry import iou

pytestmark = pytest.mark.timeout(240)
ROOT = Path(__file__).resolve().parents[2]


Done = subprocess.CompletedProcess[str]


def vault_ml(*words: str | Path, timeout_s: float = 200, **variables: str) -> Done:
    return subprocess.run(
        [sys.executable, "-m", "vault_ml", *map(str, words)],
        capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL,
        env={**bare_environment(), **variables},
    )  # fmt: skip


def rows(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture
def tiny() -> Path:
    shared_file("models/yolov3-tiny/yolov3-tiny.weights")
    return shared_file("models/yolov3-tiny/yolov3-tiny.cfg")


def test_detect_agrees_with_an_independent_run(tiny: Path) -> None:
    expected = json.loads(shared_file("expected/yolov3-tiny.json").read_text())["images"]
    photos = [shared_file(f"images/{name}") for name in expected]
    done = vault_ml("detect", "--json", "--confidence", "0.25", "--model", tiny, *photos)
    assert done.returncode == 0, done.stderr
    for row, (name, objects) in zip(rows(done.stdout), expected.items(), strict=True):
        assert row["file"].endswith(name)
        assert row["model"]["name"] == "yolov3-tiny"
        (frame,) = row["frames"]
        found = frame["detections"]
        assert [d["label"] for d in found] == [o["label"] for o in objects], name
        for ours, theirs in zip(found, objects, strict=True):
            assert abs(ours["confidence"] - theirs["score"]) < 0.03
            boxes = [np.array([box], np.float32) for box in (ours["box"], theirs["box_xyxy"])]
            assert iou(*boxes)[0, 0] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "least"),
    [
        pytest.param("models/yolov3-tiny/yolov3-tiny.cfg", 0.495, id="yolov3-tiny"),
        pytest.param("models/yolo-fastest/yolo-fastest-1.1-xl.cfg", 0.44, id="yolo-fastest-xl"),
    ],
)
def test_ap50_is_what_the_model_can(model: str, least: float) -> None:
    data = shared_file("images/coco_val_by27")
    names = shared_file("models/yolov3-tiny/coco.names")
    done = vault_ml(
        "detect", "--json", "--confidence", "0.005", "--model", shared_file(model), data / "images"
    )
    assert done.returncode == 0, done.stderr
    scored = subprocess.run(
        [sys.executable, SHARED / "tools/ap50.py", data, names],
        input=done.stdout, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    scores = dict(part.split("=") for part in scored.stdout.split())
    assert int(scores["gt"]) == 173
    assert float(scores["AP50"]) >= least, scored.stdout


def test_detect_names_what_it_cannot_look_at_and_goes_on(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "noise.mp4").write_bytes(os.urandom(4000))
    good = shared_file("images/darknet/dog.jpg")
    done = vault_ml(
        "detect", "--json", "--model", tiny, tmp_path, good, "--annotate", tmp_path / "out"
    )
    assert done.returncode == 1
    empty, noise, dog = rows(done.stdout)
    assert empty["error"]["type"] == noise["error"]["type"] == "UndecodableRecording"
    assert {d["label"] for d in dog["frames"][0]["detections"]} >= {"dog", "bicycle"}
    assert done.stderr.count("vault-ml: ") == 2
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out/dog.jpg").stat().st_size > 10_000


def test_detect_shows_clips_frame_by_frame(tiny: Path) -> None:
    clip = shared_file("video/vtest_6s_768x576_10fps.mp4")
    done = vault_ml("detect", "--model", tiny, "--frames", "3", clip)
    assert done.returncode == 0, done.stderr
    head, *frames = done.stdout.splitlines()
    assert head.endswith("768x576")
    assert len(frames) == 3
    assert all("person" in frame for frame in frames)


def test_detect_decrypts_with_the_keys_of_recordings(tiny: Path, tmp_path: Path) -> None:
    clip = shared_file("video/vtest_6s_768x576_10fps.mp4").read_bytes()
    path = tmp_path / "locked.mp4"
    path.write_bytes(encrypted(clip, "right"))
    words = ("detect", "--model", tiny, "--frames", "1", path)
    done = vault_ml(*words, RECORDING_KEYS="wrong,right")
    assert done.returncode == 0, done.stderr
    assert "person" in done.stdout
    done = vault_ml(*words, RECORDING_KEYS="wrong")
    assert done.returncode == 1
    assert "none of the 1 RECORDING_KEYS fits" in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        pytest.param(["/no/such/file.jpg"], "does not exist", id="no-file"),
        pytest.param(["--model", "yolov9", "."], "yolov9", id="unknown-model"),
        pytest.param(["--model", "/no/such.cfg", "."], "/no/such", id="no-model-file"),
        pytest.param(["--sampling", "random", "{dog}"], "keyframe", id="sampling"),
    ],
)
def test_detect_says_what_is_wrong_and_ends_with_2(words: list[str], sentence: str) -> None:
    dog = shared_file("images/darknet/dog.jpg")
    done = vault_ml("detect", *[word.format(dog=dog) for word in words])
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_truncated_weights_are_refused_with_the_layer(tiny: Path, tmp_path: Path) -> None:
    weights = tiny.with_suffix(".weights").read_bytes()
    (tmp_path / "cut.cfg").write_bytes(tiny.read_bytes())
    for name, data in (("cut", weights[:-1000]), ("long", weights + b"1234")):
        (tmp_path / f"{name}.cfg").write_bytes(tiny.read_bytes())
        (tmp_path / f"{name}.weights").write_bytes(data)
        done = vault_ml("convert", tmp_path / f"{name}.cfg", tmp_path / f"{name}.weights")
        assert done.returncode == 2
        assert "weights" in done.stderr
        assert "bytes" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / f"{name}.onnx").exists()


def test_converted_model_sees_the_same(tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine.onnx"
    done = vault_ml("convert", tiny, tiny.with_suffix(".weights"), "--output", target)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("layer     filters")
    assert "yolov3-tiny-mask" in done.stderr
    dog = shared_file("images/darknet/dog.jpg")
    seen = []
    for model in (target, tiny):
        # A cache of its own: another runtime may be remembered for one of the two, and round
        # otherwise.
        looked = vault_ml(
            "detect", "--json", "--model", model, dog, CACHE_DIR=str(tmp_path / "cache")
        )
        assert looked.returncode == 0, looked.stderr
        seen.append(rows(looked.stdout)[0]["frames"])
    assert seen[0] == seen[1]


def test_models_list_tells_licence_and_size() -> None:
    done = vault_ml("models", "list", "--json")
    assert done.returncode == 0
    by_name = {row["name"]: row for row in rows(done.stdout)}
    assert set(by_name) == {"yolov3", "yolov3-spp", "yolov3-tiny"}
    for row in by_name.values():
        assert "public domain" in row["licence"]
        assert all(len(file["sha256"]) == 64 and file["bytes"] > 0 for file in row["files"])


def test_config_masks_secrets_and_names_where_values_come_from() -> None:
    done = vault_ml(
        "config", "--json", QUEUE_NAME="q", KAFKA_BROKER="k:9092", STORAGE_URI="http://v/api",
        VAULT_ACCESS_KEY="canary-access", VAULT_SECRET_KEY="canary-secret",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["QUEUE_NAME"]["value"] == "q"
    assert found["QUEUE_DEAD_LETTER"]["value"] == "q.dlq"
    assert "canary" not in done.stdout + done.stderr


def test_run_reports_every_problem_at_once_and_ends_with_2() -> None:
    done = vault_ml("run", NUMBER_OF_PREDICTIONS="many", CONFIDENCE_THRESHOLD="7")
    assert done.returncode == 2
    for name in (
        "QUEUE_NAME",
        "KAFKA_BROKER",
        "NUMBER_OF_PREDICTIONS",
        "CONFIDENCE_THRESHOLD",
    ):
        assert name in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_detect_py_is_the_worker() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "detect.py"],
        capture_output=True, text=True, timeout=60, check=False, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 2
    assert "QUEUE_NAME" in done.stderr


def test_check_tells_what_answers_and_what_does_not(tiny: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    done = vault_ml(
        "check", "--json", QUEUE_NAME="q", KAFKA_BROKER=nowhere, MODEL=str(tiny),
        VAULT_API_URL=f"http://{nowhere}", VAULT_ACCESS_KEY="a", VAULT_SECRET_KEY="s",
    )  # fmt: skip
    by_name = {row["check"]: row for row in rows(done.stdout)}
    assert done.returncode == 3, (done.stdout, done.stderr)
    assert by_name["settings"]["ok"]
    assert by_name["model"]["ok"]
    assert "yolov3-tiny" in by_name["model"]["message"]
    for away in ("vault", "broker"):
        assert not by_name[away]["ok"]
        assert "127.0.0.1" in by_name[away]["message"]
    assert "Traceback" not in done.stderr


def test_a_worker_that_has_not_begun_yet_can_be_told_to_go() -> None:
    """As in a container, where a signal that nobody listens to is not heard: ignored at first."""
    listens = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    held = (
        "import sys, time, types; from vault_ml.cli import main\n"
        "class Slow(types.ModuleType):\n"
        "    def __getattr__(self, name):\n"
        "        print('importing', flush=True); time.sleep(60)\n"
        "sys.modules['vault_ml.app'] = Slow('vault_ml.app')\n"
        "main(['run'])"
    )
    with subprocess.Popen([sys.executable, "-c", listens + held], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"importing\n"
        worker.terminate()
        assert worker.wait(30) == 0


def test_doctor_looks_at_the_machine_even_where_the_settings_are_wrong(
    tiny: Path, tmp_path: Path
) -> None:
    done = vault_ml("doctor", "--json", QUEUE_NAME="q")
    assert done.returncode == 2, (done.stdout, done.stderr)
    levels = {row["check"]: row["level"] for row in rows(done.stdout)}
    assert set(levels) == {"processors", "limits", "settings"}
    assert levels["settings"] == "wrong"

    nowhere = f"127.0.0.1:{free_port()}"
    done = vault_ml(
        "doctor", QUEUE_NAME="q", KAFKA_BROKER=nowhere, MODEL=str(tiny), CACHE_DIR="/proc/none",
        VAULT_API_URL=f"http://{nowhere}", VAULT_ACCESS_KEY="a", VAULT_SECRET_KEY="s",
        OUTCOMES=f"sqlite:{tmp_path / 'runs.db'}", STATIC_MEMORY=f"sqlite:{tmp_path / 'scenes.db'}",
    )  # fmt: skip
    assert done.returncode == 2, (done.stdout, done.stderr)
    found = [line for line in done.stdout.splitlines() if line[0] != " "]
    # Sentences begin in one column, behind the longest name.
    assert all(line[18] == " " != line[19] for line in found), done.stdout
    marks = {line[5:18].rstrip(): line[:3].rstrip() for line in found}
    assert set(marks) == {
        *("processors", "limits", "settings", "cache", "model", "decoders", "vault", "broker"),
        *("outcomes", "static memory"),
    }
    assert marks["cache"] == marks["vault"] == marks["broker"] == "NOT"
    assert marks["outcomes"] == marks["static memory"] == "ok"
    assert marks["decoders"] in {"ok", "hm"}
    assert "-> Set CACHE_DIR to a folder" in done.stdout
    assert "Traceback" not in done.stderr


def test_help_is_instant_because_it_loads_no_heavy_library() -> None:
    """The budget is 0.3 s; what costs is what is imported, so that is what is held fast."""
    probe = (
        "import sys; from vault_ml.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = set('numpy av cv2 onnx onnxruntime pydantic httpx rich structlog'.split())\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr.strip() == "[]"
    for command in ("run", "detect", "demo", "check", "doctor", "config", "convert", "models"):
        assert command in done.stdout


@pytest.mark.slow
def test_demo_shows_people_and_vehicles_from_real_clips(tiny: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vault_ml", "demo", "--once", "--json"],
        capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path,
        env={**os.environ, "MODEL": str(tiny)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = rows(done.stdout)
    assert len(results) >= 2
    assert all(result["operation"] == "classification" for result in results)
    labels = {label for r in results for frame in r["data"]["labels"] for label in frame}
    assert "person" in labels
    assert labels & {"car", "bicycle", "bus", "truck", "motorbike"}
    assert list((tmp_path / "demo-output").glob("*.jpg"))
