"""Recordings take turns, batches change nothing, and who cannot be looked at suffers alone."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tiny_detector import HEADS, LABELS, NET_WH, picture, share, write_tiny_model
from vault_ml.detection import Detections
from vault_ml.detector import Detector
from vault_ml.detector_loop import DetectorLoop, Work, next_batch
from vault_ml.detector_wire import Picture
from vault_ml.errors import DetectorUnavailable
from vault_ml.geometry import Letterbox
from vault_ml.inference.onnx_runtime import OnnxRuntime
from vault_ml.video.shared_frames import SharedFrames

WHOLE = Letterbox.fit(NET_WH, NET_WH)
WHITE = np.full((48, 64, 3), 255, np.uint8)  # the tiny network answers NaN to it


def work(number: int, slots: Sequence[int], fd: int = -1) -> Work:
    return Work(number, fd, [Picture(slot, WHOLE) for slot in slots])


def rounds(waiting: deque[Work], limit: int) -> list[list[tuple[int, int]]]:
    taken = []
    while waiting:
        taken.append([(each.number, position) for each, position, _ in next_batch(waiting, limit)])
    return taken


def test_nothing_waits() -> None:
    assert next_batch(deque(), 4) == []


def test_recordings_take_turns() -> None:
    assert rounds(deque([work(1, range(3)), work(2, [0]), work(3, range(2))]), 1) == [
        [(1, 0)], [(2, 0)], [(3, 0)], [(1, 1)], [(3, 1)], [(1, 2)],
    ]  # fmt: skip


def test_batches_are_as_full_as_a_power_of_two_can_be() -> None:
    assert rounds(deque([work(1, range(6)), work(2, [0])]), 4) == [
        [(1, 0), (2, 0), (1, 1), (1, 2)],
        [(1, 3), (1, 4)],
        [(1, 5)],
    ]


@pytest.fixture
def detector(tmp_path: Path) -> Detector:
    model = write_tiny_model(tmp_path / "tiny.onnx", nan_when_white=True)
    return Detector(OnnxRuntime(model, device="cpu", threads=1), HEADS, LABELS, NET_WH, 0.5, 0.45)


@pytest.fixture
def shared() -> Iterator[SharedFrames]:
    frames, _ = share([*(picture((n, n % 6)) for n in range(7)), WHITE])
    with frames:
        yield frames


def serve(
    detector: Detector, batch: int, shared: SharedFrames, requests: Sequence[Sequence[int]]
) -> tuple[dict[tuple[int, int], Any], dict[int, str]]:
    """What was seen by (request, position), and why requests failed."""
    answers: list[dict[str, Any]] = []
    loop = DetectorLoop(detector, NET_WH, batch, lambda message: answers.append(dict(message)))
    fds = [os.dup(shared.fd) for _ in requests]
    for number, slots in enumerate(requests):
        loop.requests.put(work(number, slots, fds[number]))
    loop.requests.put(None)
    loop.run()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    seen = [answer for answer in answers if answer["type"] == "seen"]
    failed = [answer for answer in answers if answer["type"] == "failed"]
    assert len(seen) + len(failed) == len(answers)
    return (
        {(answer["request"], answer["position"]): answer["xyxy"] for answer in seen},
        {answer["request"]: answer["why"] for answer in failed},
    )


def test_nothing_to_do_ends(detector: Detector, shared: SharedFrames) -> None:
    assert serve(detector, 8, shared, []) == ({}, {})


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_every_frame_is_answered_the_same_in_any_batch(
    detector: Detector, shared: SharedFrames, batch: int
) -> None:
    requests = [[0, 1, 2, 3, 4, 5, 6], [6], [2, 2, 0]]
    seen, failed = serve(detector, batch, shared, requests)
    assert failed == {}
    assert len(seen) == 11
    for (request, position), xyxy in seen.items():
        (alone,) = detector.detect(shared.pixels[requests[request][position]][None], [WHOLE])
        assert xyxy == alone.xyxy.tolist()
        assert len(xyxy) == 1


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_who_cannot_be_looked_at_suffers_alone(
    detector: Detector, shared: SharedFrames, batch: int
) -> None:
    seen, failed = serve(detector, batch, shared, [[0, 1, 2], [7, 3, 7, 7], [4, 5]])
    assert list(failed) == [1]
    assert "not a finite number" in failed[1]
    assert {key for key in seen if key[0] != 1} == {(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)}


def test_memory_that_is_too_short_is_a_failure_of_that_request(
    detector: Detector, shared: SharedFrames
) -> None:
    seen, failed = serve(detector, 2, shared, [[8], [0]])
    assert failed == {0: "the frames' memory is shorter than it should be"}
    assert set(seen) == {(1, 0)}


class Recorder(Detector):
    """Looks at nothing; fails once told to."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.is_broken = False

    def detect(
        self, pixels: NDArray[np.uint8], letterboxes: Sequence[Letterbox]
    ) -> list[Detections]:
        assert len(pixels) == len(letterboxes)
        if self.is_broken:
            raise DetectorUnavailable("the GPU fell off the bus")
        self.sizes.append(len(pixels))
        return [Detections.none(LABELS) for _ in letterboxes]


def test_every_size_of_batch_is_warmed_up() -> None:
    recorder = Recorder()
    assert DetectorLoop(recorder, NET_WH, 8, print).warm_up() >= 0
    assert recorder.sizes == [1, 1, 2, 2, 4, 4, 8, 8]


def test_device_that_fails_altogether_ends_the_loop(shared: SharedFrames) -> None:
    recorder = Recorder()
    loop = DetectorLoop(recorder, NET_WH, 1, lambda message: None)
    loop.requests.put(work(0, [0], os.dup(shared.fd)))
    recorder.is_broken = True
    with pytest.raises(DetectorUnavailable, match="fell off the bus"):
        loop.run()


def wide_picture() -> Picture:
    return Picture(0, Letterbox.fit((64, 32), (64, 32)))


def test_pictures_of_two_sizes_share_no_batch() -> None:
    mixed = Work(1, -1, [Picture(0, WHOLE), wide_picture(), Picture(1, WHOLE)])
    waiting = deque([mixed, work(2, [0, 1, 2])])
    assert rounds(waiting, 4) == [[(1, 0), (2, 0), (2, 1), (2, 2)], [(1, 1)], [(1, 2)]]


def test_dropped_request_is_forgotten(shared: SharedFrames) -> None:
    dropped = work(1, [0, 1], os.dup(shared.fd))
    dropped.drop()
    dropped.drop()
    with pytest.raises(ValueError, match="was dropped"):
        dropped.read(0, np.zeros((48, 64, 3), np.uint8))
    assert rounds(deque([dropped, work(2, [0])]), 4) == [[(2, 0)]]


@pytest.mark.parametrize("lanes", [2, 5])
def test_lanes_answer_each_frame_once_and_as_one_lane_does(
    detector: Detector, shared: SharedFrames, lanes: int
) -> None:
    requests = [[0, 1, 2, 3, 4, 5, 6], [7, 3], [6], [2, 2, 0]] * 5
    answers: list[dict[str, Any]] = []
    loop = DetectorLoop(
        detector, NET_WH, 1, lambda message: answers.append(dict(message)), lanes=lanes
    )
    for number, slots in enumerate(requests):
        loop.requests.put(work(number, slots, os.dup(shared.fd)))
    loop.requests.put(None)
    loop.run()
    seen = {(each["request"], each["position"]): each for each in answers if each["type"] == "seen"}
    failed = {each["request"] for each in answers if each["type"] == "failed"}
    assert failed == {number for number, slots in enumerate(requests) if 7 in slots}
    for number, slots in enumerate(requests):
        for position, slot in enumerate(slots):
            if number in failed:
                continue
            (alone,) = detector.detect(shared.pixels[slot][None], [WHOLE])
            assert seen[number, position]["xyxy"] == alone.xyxy.tolist()
    assert len(answers) == len(seen) + len(failed)


def test_no_answer_follows_the_failure_of_a_request(
    detector: Detector, shared: SharedFrames
) -> None:
    answers: list[dict[str, Any]] = []
    loop = DetectorLoop(detector, NET_WH, 1, lambda message: answers.append(dict(message)), lanes=4)
    for number in range(40):
        loop.requests.put(work(number, [0, 7, 1, 2, 3], os.dup(shared.fd)))
    loop.requests.put(None)
    loop.run()
    over: set[int] = set()
    for answer in answers:
        assert answer["request"] not in over
        if answer["type"] == "failed":
            over.add(answer["request"])
    assert over == set(range(40))


def test_a_lane_that_finds_the_device_broken_ends_all(shared: SharedFrames) -> None:
    recorder = Recorder()
    loop = DetectorLoop(recorder, NET_WH, 1, lambda message: None, lanes=3)
    recorder.is_broken = True
    loop.requests.put(work(0, [0], os.dup(shared.fd)))
    with pytest.raises(DetectorUnavailable, match="fell off the bus"):
        loop.run()


def test_no_larger_batch_than_is_worth_it() -> None:
    loop = DetectorLoop(Recorder(), NET_WH, 8, print)
    loop._run_s = {1: 1.0, 2: 1.2, 4: 2.0, 8: 3.99}
    loop.choose_batch()
    assert loop.batch == 4


def test_waits_for_company_no_longer_than_it_wins() -> None:
    loop = DetectorLoop(Recorder(), NET_WH, 4, print)
    loop._run_s = {1: 1.0, 2: 1.0, 4: 2.0}
    loop._waiting.append(work(1, [0]))
    loop.requests.put(work(2, [0]))
    assert len(loop._take()) == 2  # the second came within the second that sharing wins
    loop._waiting.append(work(3, [0, 1]))
    loop._run_s[4] = 2.1  # two runs of two are no slower than one of four
    assert len(loop._take()) == 2
