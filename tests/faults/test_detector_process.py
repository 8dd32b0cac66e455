"""The detector's child dies, hangs, lies; the parent says so, replaces it, and is never wrong."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from open_files import open_files, opened_since
from tiny_detector import LABELS, NET_WH, picture, share, tiny_metadata, tiny_weights
from tiny_detector import write_tiny_model as write_model
from vault_ml import detector_host, detector_process
from vault_ml.detection import Detections
from vault_ml.detector_process import DetectorOptions, DetectorProcess
from vault_ml.errors import ConfigError, DetectorUnavailable, ModelError
from vault_ml.geometry import Letterbox
from vault_ml.models.prepare import PreparedModel
from vault_ml.video.frame import Frame
from vault_ml.video.shared_frames import SharedFrames

OPTIONS = DetectorOptions(device="cpu", threads=1, deadline_s=20, start_s=60, wait_s=60)


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not in {timeout_s:g} s: {what}"
        time.sleep(0.005)


@pytest.fixture
def model(tmp_path: Path) -> PreparedModel:
    return PreparedModel(
        name="tiny",
        sha256="0" * 64,
        onnx=write_model(tmp_path / "tiny.onnx", nan_when_white=True),
        net_wh=NET_WH,
        labels=LABELS,
        corrections=(),
        layer_table="",
    )


@pytest.fixture
def detector(model: PreparedModel) -> Iterator[DetectorProcess]:
    with DetectorProcess(model, OPTIONS) as detector:
        detector.start()
        yield detector


def cells_of(number: int) -> list[tuple[int, int]]:
    """Cells of frame `number`: no two of the first 48 frames show the same."""
    return [(number % 8, number // 8 % 6)]


def assert_sees(seen: Detections, cells: list[tuple[int, int]]) -> None:
    """Each cell is one `cat` whose 16x8 anchor lies around it, clipped to the frame."""
    expected = sorted((max(0, 8 * x - 4), 8 * y, min(64, 8 * x + 12), 8 * y + 8) for x, y in cells)
    assert [seen.label(index) for index in range(len(seen))] == ["cat"] * len(cells)
    np.testing.assert_allclose(sorted(seen.xyxy.tolist()), expected, atol=1e-3)


def look(detector: DetectorProcess, first: int, count: int = 3) -> None:
    """Look at `count` different frames and check every answer."""
    shared, frames = share([picture(*cells_of(first + index)) for index in range(count)])
    with shared:
        for index, seen in enumerate(detector.detect(shared, frames)):
            assert_sees(seen, cells_of(first + index))


def in_hand(detector: DetectorProcess) -> int:
    host = detector._host
    return 0 if host is None else len(host._ledger.requests)


def pid_of(detector: DetectorProcess) -> int:
    assert detector.pid is not None
    return detector.pid


def detect_for_ever(
    detector: DetectorProcess, shared: SharedFrames, frames: Sequence[Frame]
) -> None:
    while True:
        detector.detect(shared, frames)


def all_advanced(now: Sequence[int], before: Sequence[int]) -> bool:
    return all(count > then for count, then in zip(now, before, strict=True))


def wait_for_restarts(detector: DetectorProcess, count: int) -> None:
    wait_until(lambda: detector.restarts == count, f"child {count} is noticed to be lost")


# --- as it should be


def test_looks_at_nothing_and_at_something(detector: DetectorProcess) -> None:
    shared, frames = share([picture(), picture((3, 2), (6, 4))])
    with shared:
        assert detector.detect(shared, []) == []
        empty, full = detector.detect(shared, frames)
    assert len(empty) == 0
    assert_sees(full, [(3, 2), (6, 4)])
    assert detector.info.device == "cpu"
    assert detector.restarts == 0
    detector.ping()


def test_frames_may_be_any_of_the_shared_ones_in_any_order(detector: DetectorProcess) -> None:
    shared, frames = share([picture(*cells_of(n)) for n in range(6)])
    with shared:
        seen = detector.detect(shared, [frames[4], frames[1]])
    assert_sees(seen[0], cells_of(4))
    assert_sees(seen[1], cells_of(1))


def test_boxes_come_in_pixels_of_the_original_frame(detector: DetectorProcess) -> None:
    shared, frames = share([picture((3, 2))], frame_wh=(640, 480))
    with shared:
        (seen,) = detector.detect(shared, frames)
    np.testing.assert_allclose(seen.xyxy, [[200, 160, 360, 240]], atol=1e-2)


def test_many_threads_get_what_one_gets(detector: DetectorProcess) -> None:
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda n: look(detector, n % 40, 1 + n % 7), range(90)))
    assert detector.restarts == 0


def test_short_recording_does_not_wait_for_a_long_one(model: PreparedModel, tmp_path: Path) -> None:
    slow = replace(model, onnx=write_model(tmp_path / "slow.onnx", repeat=3))
    done: list[str] = []
    with DetectorProcess(slow, OPTIONS) as slow_detector:
        slow_detector.start()

        def run(name: str, count: int) -> None:
            look(slow_detector, 0, count)
            done.append(name)

        long = threading.Thread(target=run, args=("long", 120))
        long.start()
        wait_until(lambda: in_hand(slow_detector) == 1, "the long recording is being looked at")
        run("short", 2)
        long.join()
    assert done == ["short", "long"]


def test_frame_from_elsewhere_is_refused(detector: DetectorProcess) -> None:
    shared, frames = share([picture()])
    with shared:
        with pytest.raises(ValueError, match="does not lie in the shared memory"):
            detector.detect(shared, [replace(frames[0], pixels=picture())])
        small = Letterbox.fit((64, 48), (32, 32))
        with pytest.raises(ValueError, match=r"frames of \(32, 32\) came to a network of"):
            detector.detect(shared, [replace(frames[0], letterbox=small)])
    assert in_hand(detector) == 0
    look(detector, 0)


# --- it cannot start


def test_missing_model_is_a_sentence(model: PreparedModel, tmp_path: Path) -> None:
    detector = DetectorProcess(replace(model, onnx=tmp_path / "gone.onnx"), OPTIONS)
    with pytest.raises(ModelError, match=r"gone\.onnx is not there"):
        detector.start()
    with pytest.raises(DetectorUnavailable, match="not been started"):
        detector.ping()
    with pytest.raises(DetectorUnavailable, match="not been started"):
        _ = detector.info
    detector.close()


def test_damaged_model_is_a_sentence(model: PreparedModel) -> None:
    model.onnx.write_bytes(model.onnx.read_bytes()[:-200])
    with DetectorProcess(model, OPTIONS) as detector, pytest.raises(ModelError, match="damaged"):
        detector.start()


def test_model_without_our_metadata_is_a_sentence(model: PreparedModel) -> None:
    write_model(model.onnx, metadata={"author": "someone"})
    with (
        DetectorProcess(model, OPTIONS) as detector,
        pytest.raises(ModelError, match="vault-ml convert"),
    ):
        detector.start()


def test_model_that_computes_no_numbers_is_a_sentence(model: PreparedModel) -> None:
    weights, _ = tiny_weights()
    weights[4, 0, 0, 0] = np.nan
    write_model(model.onnx, weights=weights)
    with (
        DetectorProcess(model, OPTIONS) as detector,
        pytest.raises(ModelError, match="does not run: the network's output is not a finite"),
    ):
        detector.start()


def test_other_labels_than_prepared_are_a_sentence(model: PreparedModel) -> None:
    metadata = {**tiny_metadata(), "vault_ml.labels": '["a", "b", "c"]'}
    write_model(model.onnx, metadata=metadata)
    with (
        DetectorProcess(model, OPTIONS) as detector,
        pytest.raises(ModelError, match="other class names"),
    ):
        detector.start()


def test_missing_device_is_a_sentence(model: PreparedModel) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with (
        DetectorProcess(model, replace(OPTIONS, device="cuda")) as detector,
        pytest.raises(ConfigError, match="'cuda' was asked for") as caught,
    ):
        detector.start()
    assert not isinstance(caught.value, ModelError)


def test_failed_start_can_be_repeated(model: PreparedModel, tmp_path: Path) -> None:
    model.onnx.rename(tmp_path / "aside")
    with DetectorProcess(model, OPTIONS) as detector:
        with pytest.raises(ModelError):
            detector.start()
        (tmp_path / "aside").rename(model.onnx)
        detector.start()
        look(detector, 0)
        with pytest.raises(RuntimeError, match="started before"):
            detector.start()


# --- it dies


def test_killed_while_idle_is_replaced_at_once(model: PreparedModel) -> None:
    reasons: list[str] = []
    with DetectorProcess(model, OPTIONS, on_restart=reasons.append) as detector:
        detector.start()
        look(detector, 0)
        first = pid_of(detector)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: detector.restarts == 1, "the death is noticed", 2)
        look(detector, 5)
        detector.ping()
        assert pid_of(detector) != first
        assert reasons == ["the detector process was killed by SIGKILL"]


def test_killed_during_a_request_fails_it_and_serves_the_next(detector: DetectorProcess) -> None:
    pid = pid_of(detector)
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(3) as threads:
        futures = [threads.submit(look, detector, n) for n in range(3)]
        wait_until(lambda: in_hand(detector) == 3, "three requests are in hand")
        started = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        for future in futures:
            with pytest.raises(DetectorUnavailable, match="was killed by SIGKILL"):
                future.result(30)
        assert time.monotonic() - started < 5
    look(detector, 0)


def test_twenty_kills_under_load_cost_only_retries(detector: DetectorProcess) -> None:
    stop = threading.Event()
    answered, refused = [0] * 4, [0] * 4

    def load(number: int) -> None:
        step = number
        while not stop.is_set():
            step += 4
            try:
                look(detector, step % 40, 1 + step % 5)
                answered[number] += 1
            except DetectorUnavailable:
                refused[number] += 1

    threads = ThreadPoolExecutor(4)
    with threads:
        futures = [threads.submit(load, number) for number in range(4)]
        try:
            for kill in range(20):
                wait_until(
                    partial(all_advanced, answered, list(answered)),
                    f"every thread gets an answer before kill {kill}",
                )
                os.kill(pid_of(detector), signal.SIGKILL)
                wait_for_restarts(detector, kill + 1)
        finally:
            stop.set()
        for future in futures:
            future.result(60)
    assert detector.restarts == 20
    look(detector, 0)
    assert detector.failures_in_a_row == 0


def test_nothing_is_left_behind(model: PreparedModel) -> None:
    before, threads_before = open_files(), threading.active_count()
    pids = []
    with DetectorProcess(model, OPTIONS) as detector:
        detector.start()
        threads_running = threading.active_count()
        running = len(opened_since(before))
        for kill in range(4):
            look(detector, kill)
            pids.append(pid_of(detector))
            os.kill(pids[-1], signal.SIGKILL)
            wait_for_restarts(detector, kill + 1)
            look(detector, kill)
        assert len(opened_since(before)) <= running
        assert threading.active_count() <= threads_running
        pids.append(pid_of(detector))
    assert opened_since(before) == []
    # The thread that starts children stays for as long as the process does.
    assert threading.active_count() <= threads_before + 1
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_child_holds_no_memory_of_finished_recordings(detector: DetectorProcess) -> None:
    def descriptors() -> int:
        return len(list(Path(f"/proc/{detector.pid}/fd").iterdir()))

    look(detector, 0)
    before = descriptors()
    for step in range(30):
        look(detector, step)
    wait_until(lambda: descriptors() <= before, "the child closed what it got")


# --- it hangs


def test_stuck_during_a_request_is_found_within_twice_the_deadline(model: PreparedModel) -> None:
    with DetectorProcess(model, replace(OPTIONS, deadline_s=1)) as detector:
        detector.start()
        pid = pid_of(detector)
        os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(DetectorUnavailable, match="stood still for 1 s"):
            look(detector, 0)
        assert time.monotonic() - started < 2
        look(detector, 0)
        assert not Path(f"/proc/{pid}").exists()


def test_stuck_while_idle_is_found_within_twice_the_deadline(model: PreparedModel) -> None:
    with DetectorProcess(model, replace(OPTIONS, deadline_s=1)) as detector:
        detector.start()
        os.kill(pid_of(detector), signal.SIGSTOP)
        started = time.monotonic()
        wait_until(lambda: detector.restarts == 1, "the heartbeat stops")
        assert time.monotonic() - started < 2
        look(detector, 0)


def test_idle_child_that_answers_pings_is_left_alone(model: PreparedModel) -> None:
    with DetectorProcess(model, replace(OPTIONS, deadline_s=1)) as detector:
        detector.start()
        host, pings = detector._host, 0
        assert host is not None
        taken = host._take

        def count(message: dict[str, object]) -> None:
            nonlocal pings
            pings += message.get("type") == "pong"
            taken(message)

        host._take = count  # type: ignore[assignment, method-assign]  # to count
        wait_until(lambda: pings >= 3, "three pings were answered")
        assert detector.restarts == 0


# --- it cannot look


def test_picture_without_an_answer_fails_alone(detector: DetectorProcess) -> None:
    pid = detector.pid
    white = np.full((48, 64, 3), 255, np.uint8)
    shared, frames = share([picture((1, 1)), white, picture((2, 2))])
    with shared, ThreadPoolExecutor(2) as threads:
        others = [threads.submit(look, detector, n, 7) for n in range(10)]
        with pytest.raises(DetectorUnavailable, match="not a finite number"):
            detector.detect(shared, frames)
        for other in others:
            other.result(60)
    assert (detector.pid, detector.restarts) == (pid, 0)


def test_memory_that_was_cut_off_fails_alone(detector: DetectorProcess) -> None:
    pid = detector.pid
    whole, frames = share([picture(*cells_of(n)) for n in range(4)])
    unsealed = os.memfd_create("unsealed")
    os.truncate(unsealed, whole.pixels.nbytes)
    with whole, SharedFrames.attach(unsealed, whole.capacity, NET_WH) as shared:
        frames = [
            replace(frame, pixels=pixels)
            for frame, pixels in zip(frames, shared.pixels, strict=True)
        ]
        os.truncate(unsealed, 100)
        with pytest.raises(DetectorUnavailable, match="shorter than it should be"):
            detector.detect(shared, frames)
    look(detector, 0)
    assert (detector.pid, detector.restarts) == (pid, 0)


def test_reason_of_a_failing_replacement_is_told_and_it_is_tried_again(
    model: PreparedModel, tmp_path: Path
) -> None:
    with DetectorProcess(model, replace(OPTIONS, wait_s=0.2)) as detector:
        detector.start()
        model.onnx.rename(tmp_path / "aside")
        os.kill(pid_of(detector), signal.SIGKILL)
        wait_until(lambda: "is not there" in detector._trouble, "the replacement fails")
        with pytest.raises(DetectorUnavailable, match=r"cannot be replaced: .* is not there"):
            detector.ping()
        with pytest.raises(DetectorUnavailable, match=r"cannot be replaced: .* is not there"):
            look(detector, 0)
        wait_until(lambda: detector.failures_in_a_row >= 2, "it is tried again")
        (tmp_path / "aside").rename(model.onnx)
        wait_until(lambda: detector._is_warm, "it works again")
        look(detector, 0)


def test_replacement_on_another_device_is_refused(
    model: PreparedModel, lying_child: Callable[[str], None]
) -> None:
    lying_child("say(**{**ready, 'device': 'cuda:0 NVIDIA L4'})\nhear()\n")
    with DetectorProcess(model, replace(OPTIONS, wait_s=0.2)) as detector:
        detector.start()
        lying_child("say(**ready)\nhear()\n")
        os.kill(pid_of(detector), signal.SIGKILL)
        wait_until(lambda: detector.failures_in_a_row >= 3, "replacements are tried")
        with pytest.raises(DetectorUnavailable, match=r"ran on cuda:0 NVIDIA L4 .* now run on cpu"):
            detector.ping()
        lying_child("say(**{**ready, 'device': 'cuda:0 NVIDIA L4'})\nhear()\n")
        wait_until(lambda: detector._is_warm, "the GPU is back")
        detector.ping()


def test_broken_hook_does_not_stop_the_replacement(
    model: PreparedModel, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(reason: str) -> None:
        raise KeyError(reason)

    with DetectorProcess(model, OPTIONS, on_restart=hook) as detector:
        detector.start()
        os.kill(pid_of(detector), signal.SIGKILL)
        wait_until(lambda: detector.restarts == 1, "the death is noticed")
        look(detector, 0)
    assert "detector_hook_failed" in caplog.text


def test_broken_watch_is_a_lost_child(
    model: PreparedModel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DetectorProcess(model, OPTIONS) as detector:
        detector.start()
        host = detector._host
        assert host is not None

        def broken(message: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(host, "_take", broken)
        with pytest.raises(DetectorUnavailable, match="stopped being watched"):
            look(detector, 0)
        look(detector, 0)
    assert "detector_watch_failed" in caplog.text


# --- it is closed


def test_close_fails_what_is_pending_and_is_fast(model: PreparedModel) -> None:
    detector = DetectorProcess(model, OPTIONS)
    detector.start()
    pid = pid_of(detector)
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(look, detector, n) for n in range(2)]
        wait_until(lambda: in_hand(detector) == 2, "two requests are in hand")
        started = time.monotonic()
        detector.close()
        assert time.monotonic() - started < 1
        for future in futures:
            with pytest.raises(DetectorUnavailable):
                future.result(10)
    assert not Path(f"/proc/{pid}").exists()
    detector.close()
    for act in (detector.ping, lambda: look(detector, 0)):
        with pytest.raises(DetectorUnavailable, match="closed"):
            act()


def test_close_does_not_wait_for_a_replacement(
    model: PreparedModel, lying_child: Callable[[str], None]
) -> None:
    with DetectorProcess(model, OPTIONS) as detector:
        detector.start()
        lying_child("time.sleep(600)")
        os.kill(pid_of(detector), signal.SIGKILL)
        wait_until(lambda: detector.restarts == 1, "the death is noticed")
        wait_until(lambda: detector.pid is not None, "the next one is starting")
        waiting = ThreadPoolExecutor(1)
        with waiting:
            future = waiting.submit(look, detector, 0)
            started = time.monotonic()
            detector.close()
            assert time.monotonic() - started < 2
            with pytest.raises(DetectorUnavailable, match="closed"):
                future.result(10)


def test_close_during_the_pause_before_a_replacement(
    model: PreparedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector_process, "_FIRST_PAUSE_S", 600)
    monkeypatch.setattr(detector_process, "_LONGEST_PAUSE_S", 600)
    with DetectorProcess(model, OPTIONS) as detector:
        detector.start()
        os.kill(pid_of(detector), signal.SIGKILL)  # before it answered anything
        wait_until(lambda: detector.failures_in_a_row == 1, "the death is noticed")
        started = time.monotonic()
        detector.close()
        assert time.monotonic() - started < 1


# --- it lies


@pytest.fixture
def lying_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Children started from now on run `script` with `channel` and `ready` at hand."""

    def install(script: str) -> None:
        (tmp_path / "lying_child.py").write_text(
            "import os, time\n"
            "from vault_ml.child import connect\n"
            "channel, _ = connect()\n"
            "def hear(): return channel.receive(timeout_s=60)[0]\n"
            "def say(fds=(), **message): channel.send(message, fds, timeout_s=60)\n"
            "hear()\n"
            "ready = dict(type='ready', runtime='liar 1', device='cpu', precision='fp32',\n"
            f"             labels={list(LABELS)}, net_wh={list(NET_WH)}, run_s=0.001)\n"
            "truth = dict(type='seen', request=0, position=0, xyxy=[[1.0, 2.0, 3.0, 4.0]],\n"
            "             confidence=[0.5], class_id=[2])\n" + script
        )
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
        monkeypatch.setattr(detector_host, "_CHILD_MODULE", "lying_child")

    return install


@pytest.mark.parametrize(
    ("script", "message"),
    [
        pytest.param("", "exited with 0, while it started", id="leaves"),
        pytest.param("os._exit(3)", "exited with 3, while it started", id="crashes"),
        pytest.param("time.sleep(600)", "not ready within 3 s", id="hangs"),
        pytest.param("say(type='hello')", "nonsense: runtime: expected str", id="babbles"),
        pytest.param("say([0], **ready)", "nonsense: a descriptor", id="sends-a-descriptor"),
        pytest.param("say(**{**ready, 'labels': [1]})", "nonsense: labels", id="labels"),
        pytest.param("say(**{**ready, 'net_wh': [8]})", "nonsense: net_wh", id="size"),
        pytest.param("say(**{**ready, 'run_s': -1.0})", "nonsense: run_s", id="time"),
    ],
)
def test_child_that_does_not_start_properly_is_unavailable(
    model: PreparedModel, lying_child: Callable[[str], None], script: str, message: str
) -> None:
    lying_child(script)
    options = replace(OPTIONS, start_s=3)
    with (
        DetectorProcess(model, options) as detector,
        pytest.raises(DetectorUnavailable, match=message),
    ):
        detector.start()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param("say(type='what', request=0)", "of kind what", id="unknown-kind"),
        pytest.param("say(**{**truth, 'request': 9})", "answer to nothing", id="other-request"),
        pytest.param("say(**{**truth, 'request': None})", "answer to nothing", id="no-request"),
        pytest.param("say(**{**truth, 'request': True})", "answer to nothing", id="bool"),
        pytest.param("say(**{**truth, 'position': 2})", "not asked for", id="other-frame"),
        pytest.param("say(**truth); say(**truth)", "not asked for", id="frame-twice"),
        pytest.param("say(**{**truth, 'class_id': [3]})", "class_id", id="class"),
        pytest.param("say([0], **truth)", "a descriptor", id="descriptor"),
        pytest.param("channel._sock.sendall(b'\\0\\0\\0\\2??')", "exited", id="not-json"),
        pytest.param("say(type='fatal', why='the GPU fell off')", "the GPU fell off", id="fatal"),
    ],
)
def test_lie_ends_the_child_and_is_never_believed(
    model: PreparedModel, lying_child: Callable[[str], None], answer: str, message: str
) -> None:
    lying_child(f"say(**ready)\nhear()\n{answer}\n")
    shared, frames = share([picture(), picture()])
    with shared, DetectorProcess(model, OPTIONS) as detector:
        detector.start()
        with pytest.raises(DetectorUnavailable, match=message):
            detector.detect(shared, frames)
        wait_until(lambda: detector.restarts == 1, "it is replaced")


def test_lost_request_is_found_although_others_are_answered(
    model: PreparedModel, lying_child: Callable[[str], None]
) -> None:
    lying_child(
        "say(**ready)\n"
        "while True:\n"
        "    request = hear()['request']\n"
        "    if request: say(**{**truth, 'request': request})\n"
    )
    shared, frames = share([picture()])
    with (
        shared,
        DetectorProcess(model, replace(OPTIONS, deadline_s=0.5)) as detector,
        ThreadPoolExecutor(1) as threads,
    ):
        detector.start()
        started = time.monotonic()
        lost = threads.submit(detector.detect, shared, frames)
        wait_until(lambda: in_hand(detector) == 1, "the first request is in hand")
        with pytest.raises(DetectorUnavailable, match="stood still"):
            detect_for_ever(detector, shared, frames)
        with pytest.raises(DetectorUnavailable, match="stood still"):
            lost.result(10)
        assert time.monotonic() - started < 0.5 * 2 * 2 + 2


def test_machine_too_slow_for_the_deadline_is_given_time(
    model: PreparedModel, lying_child: Callable[[str], None]
) -> None:
    lying_child("say(**{**ready, 'run_s': 1.0})\nhear()\ntime.sleep(0.5)\nsay(**truth)\nhear()\n")
    shared, frames = share([picture()])
    with shared, DetectorProcess(model, replace(OPTIONS, deadline_s=0.1)) as detector:
        detector.start()
        (seen,) = detector.detect(shared, frames)
        assert seen.label(0) == "bird"
        assert detector.restarts == 0


def test_child_that_takes_no_work_is_lost(
    model: PreparedModel, lying_child: Callable[[str], None]
) -> None:
    lying_child("say(**ready)\nchannel.close()\ntime.sleep(600)\n")
    shared, frames = share([picture()])
    with shared, DetectorProcess(model, replace(OPTIONS, wait_s=5)) as detector:
        detector.start()
        with pytest.raises(DetectorUnavailable):
            detect_for_ever(detector, shared, frames)


def test_a_gpu_that_is_gone_does_not_become_a_processor_on_the_quiet(model: PreparedModel) -> None:
    with DetectorProcess(model, replace(OPTIONS, wait_s=1)) as detector:
        detector.start()
        # What a replacement says is held against what ran before; here, that was a GPU.
        detector._info = replace(detector.info, device="cuda:0")
        os.kill(detector.pid or 0, signal.SIGKILL)

        def is_said() -> bool:
            try:
                detector.ping()
            except DetectorUnavailable as error:
                return "ran on cuda:0" in str(error) and "mend the device" in str(error)
            return False

        wait_until(is_said, "the worker is not ready, and says why", 60)
        assert detector.info.device == "cuda:0", "nothing runs on the processor"
