"""One recording's run and result, as tests that are about something else need them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from vault_ml.brokers.port import Message
from vault_ml.detection import Detections
from vault_ml.event import RecordingEvent
from vault_ml.geometry import FrameXyxy
from vault_ml.pipeline import Progress
from vault_ml.result import LookedAtFrame, Run, RunModel, RunRecording
from vault_ml.sinks.port import Processed
from vault_ml.verdict import Verdict

_RUN = Run(
    id="6f2b8a52-0b4c-5d0e-8f43-1f4f6f9d2a11",
    version="0.1.0",
    count=1,
    rule="objects in one frame >= 1",
    is_interesting=True,
    model=RunModel("yolov3", "ab" * 32),
    confidence_threshold=0.5,
    nms_threshold=0.45,
    runtime="onnxruntime 1.20.0",
    device="cpu",
    precision="fp32",
    sampling="keyframe",
    choice=None,
    recording=RunRecording(1000, 1000, "cd" * 32, [(0, 999)], 1280, 720, False, 4.0),
)


def run(**different: Any) -> Run:
    """How a recording was looked at; name what matters to the test."""
    return replace(_RUN, **different)


def one_person(event: RecordingEvent, body: bytes, progress: Progress) -> Processed:
    """A person in one frame, interesting, with `body` as its result message."""
    seen = Detections(
        FrameXyxy(np.array([[1, 2, 3, 4]], np.float32)),
        np.array([0.9], np.float32),
        np.array([0], np.int64),
        ("person",),
    )
    return Processed(
        event=event,
        frames=[LookedAtFrame(0, 0.0, seen)],
        verdict=Verdict(1, _RUN.rule, is_interesting=True),
        message=Message(body, b"camera", {"vault-ml-run-id": event.key}),
        run_id=event.key,
        seconds=progress.seconds,
        bytes_fetched=1,
        left_out=None,
    )
