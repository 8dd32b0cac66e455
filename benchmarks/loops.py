"""The loops that people write first."""

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

    def __init__(self, files: ModelFiles, prepared: PreparedModel, frames: int) -> None:
        self._files, self._prepared, self._frames = files, prepared, frames
        self._warm = self._session()
        w, h = prepared.net_wh
        self._noise = np.random.default_rng(1).random((1, 3, h, w), dtype=np.float32)

    def plain(self, clip: bytes) -> int:
        """Model per message, every frame read, OpenCV's network on n of them."""
        if self._files.cfg is None or self._files.weights is None:
            net = cv2.dnn.readNetFromONNX(str(self._prepared.onnx))
        else:
            net = cv2.dnn.readNetFromDarknet(str(self._files.cfg), str(self._files.weights))
        outputs = net.getUnconnectedOutLayersNames()

        def look(blob: NDArray[np.float32]) -> int:
            net.setInput(blob)
            return sum(
                int(np.count_nonzero(rows[..., 5:].max(axis=-1) > 0.5))
                for rows in net.forward(outputs)
            )

        return self._loop(clip, look)

    def successor(self, clip: bytes) -> int:
        """Model per message, every frame read, ONNX Runtime on n of them."""
        session = self._session()
        return self._loop(clip, lambda blob: self._count(session, blob))

    def bare(self) -> int:
        """n runs of the network with ONNX Runtime's defaults, one after the other."""
        return sum(self._count(self._warm, self._noise) for _ in range(self._frames))

    def _session(self) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(
            str(self._prepared.onnx), providers=["CPUExecutionProvider"]
        )

    def _count(self, session: onnxruntime.InferenceSession, blob: NDArray[np.float32]) -> int:
        name = session.get_inputs()[0].name
        return sum(int(np.count_nonzero(rows > 5)) for rows in session.run(None, {name: blob}))

    def _loop(self, clip: bytes, look: Callable[[NDArray[np.float32]], int]) -> int:
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
                    size = self._prepared.net_wh
                    found += look(cv2.dnn.blobFromImage(frame, 1 / 255, size, swapRB=True))
                index += 1
            capture.release()
        return found


@contextmanager
def _file_of(clip: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(clip)
        file.flush()
        yield Path(file.name)
