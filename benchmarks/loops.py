"""The loops that people write first.

Two are in the manner of the successors: model per message, every frame read, one inference per
sampled frame. One does it with Ultralytics' `track`, as they do, and needs that package (AGPL-3.0,
with PyTorch; never a dependency of ours); the other with ONNX Runtime alone, which is faster.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from vault_ml.models.prepare import ModelFiles, PreparedModel


class Peer:
    """What others do with one recording; each returns a number that depends on what it saw."""

    def __init__(
        self,
        files: ModelFiles,
        prepared: PreparedModel,
        frames: int,
        ultralytics: str | None = None,
    ) -> None:
        """`ultralytics` is what `YOLO()` takes: a .pt, .onnx or .yaml of theirs."""
        self._files, self._prepared, self._frames = files, prepared, frames
        self._ultralytics = ultralytics
        self._warm = self._session()
        w, h = prepared.net_wh
        self._noise = np.random.default_rng(1).random((1, 3, h, w), dtype=np.float32)

    @property
    def has_plain(self) -> bool:
        """OpenCV's network reads the model; it does not know all that ONNX may hold."""
        try:
            self._net()
        except cv2.error:
            return False
        return True

    def plain(self, clip: bytes) -> int:
        """Model per message, every frame read, OpenCV's network on n of them."""
        net = self._net()
        outputs = net.getUnconnectedOutLayersNames()

        def look(frame: NDArray[np.uint8]) -> int:
            net.setInput(self._blob(frame))
            return sum(
                int(np.count_nonzero(rows[..., 5:].max(axis=-1) > 0.5))
                for rows in net.forward(outputs)
            )

        return self._loop(clip, look)

    def successor(self, clip: bytes) -> int:
        """Model per message, every frame read, ONNX Runtime on n of them."""
        session = self._session()
        return self._loop(clip, lambda frame: self._count(session, self._blob(frame)))

    def ultralytics(self, clip: bytes) -> int:
        """Model per message, every frame read, `track` on n of them."""
        from ultralytics import YOLO

        model = YOLO(self._ultralytics, task="detect")

        def look(frame: NDArray[np.uint8]) -> int:
            (seen,) = model.track(frame, persist=True, verbose=False, device="cpu")
            return len(seen.boxes)

        return self._loop(clip, look)

    def bare(self) -> int:
        """n runs of the network with ONNX Runtime's defaults, one after the other."""
        return sum(self._count(self._warm, self._noise) for _ in range(self._frames))

    def _net(self) -> cv2.dnn.Net:
        if self._files.cfg is None or self._files.weights is None:
            return cv2.dnn.readNetFromONNX(str(self._prepared.onnx))
        return cv2.dnn.readNetFromDarknet(str(self._files.cfg), str(self._files.weights))

    def _session(self) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(
            str(self._prepared.onnx), providers=["CPUExecutionProvider"]
        )

    def _count(self, session: onnxruntime.InferenceSession, blob: NDArray[np.float32]) -> int:
        name = session.get_inputs()[0].name
        return sum(int(np.count_nonzero(rows > 5)) for rows in session.run(None, {name: blob}))

    def _blob(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        blob = cv2.dnn.blobFromImage(frame, 1 / 255, self._prepared.net_wh, swapRB=True)
        return np.asarray(blob, np.float32)

    def _loop(self, clip: bytes, look: Callable[[NDArray[np.uint8]], int]) -> int:
        found = 0
        with _file_of(clip) as path:
            capture = cv2.VideoCapture(str(path))
            total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            wanted = {round((i + 0.5) * total / self._frames) for i in range(self._frames)}
            index = 0
            while True:
                is_read, frame = capture.read()
                if not is_read:
                    break
                if index in wanted:
                    found += look(np.asarray(frame, np.uint8))
                index += 1
            capture.release()
        return found


@contextmanager
def _file_of(clip: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(clip)
        file.flush()
        yield Path(file.name)
