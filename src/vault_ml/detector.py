"""`Detector`: letterboxed frames to detections in frame pixels, over any inference runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vault_ml.detection import Detections
from vault_ml.errors import DetectorUnavailable, ModelError
from vault_ml.geometry import FrameXyxy, Letterbox, NetXyxy, area
from vault_ml.inference.port import InferenceRuntime, RuntimeInfo
from vault_ml.yolo.head import Head
from vault_ml.yolo.nms import per_class_nms


class Detector:
    """A network with a YOLO head, its thresholds and its labels.

    Used by as many threads at a time as its runtime has lanes.
    """

    def __init__(
        self,
        runtime: InferenceRuntime,
        head: Head,
        labels: Sequence[str],
        net_wh: tuple[int, int],
        confidence_threshold: float,
        nms_threshold: float,
    ) -> None:
        """Put the parts together; nothing runs yet.

        Args:
            runtime: gives the outputs that `head` reads.
            head: what they mean.
            labels: class names, one per class of the head.
            net_wh: size of the largest input, pixels.
            confidence_threshold: boxes at or below it are dropped. Lower shows more objects and
                more mistakes.
            nms_threshold: of two boxes of a class with a larger IoU the weaker is dropped. Lower
                merges people who stand close together; higher shows one person twice.

        Raises:
            ModelError: the head has another number of classes than there are labels.
        """
        if head.classes != len(labels):
            raise ModelError(
                f"the model's head knows {head.classes} classes but there are {len(labels)} "
                "labels; use the .names file that belongs to the model"
            )
        self._runtime = runtime
        self._head = head
        self._labels = tuple(labels)
        self._net_wh = net_wh
        self._confidence_threshold = confidence_threshold
        self._nms_threshold = nms_threshold

    @property
    def info(self) -> RuntimeInfo:
        """What really runs."""
        return self._runtime.info

    def detect(
        self, pixels: NDArray[np.uint8], letterboxes: Sequence[Letterbox]
    ) -> list[Detections]:
        """Look at n frames. What is seen in one does not depend on the others.

        Args:
            pixels: (n, h, w, 3) uint8 RGB, letterboxed at a size that the network takes.
            letterboxes: n, where each frame lies inside its picture.

        Returns:
            n `Detections` in frame pixels, inside the frame, each box with an area; equal
            confidences are ordered by class, then by box, so the order is always the same.

        Raises:
            ValueError: shape, dtype or number of the arguments is wrong.
            ModelError: the network's outputs are not what its heads describe.
            DetectorUnavailable: the runtime failed, or an output or a box is not a finite number.
                That is no answer, and never "nothing seen".
        """
        w, h = self._net_wh
        if (
            pixels.dtype != np.uint8
            or pixels.ndim != 4
            or pixels.shape[3] != 3
            or not (pixels.shape[1] <= h and pixels.shape[2] <= w)
        ):
            raise ValueError(
                f"pixels: expected (n, {h}, {w}, 3) uint8 or smaller pictures, "
                f"got {pixels.shape} {pixels.dtype}"
            )
        if len(letterboxes) != len(pixels):
            raise ValueError(f"{len(pixels)} pictures came with {len(letterboxes)} letterboxes")
        if len(pixels) == 0:
            return []
        for letterbox in letterboxes:
            if letterbox.net_wh != pixels.shape[2:0:-1]:
                raise ValueError(
                    f"a letterbox for {letterbox.net_wh} came with pictures of {pixels.shape[1:]}"
                )
        outputs = self._runtime.infer(pixels)
        self._check(outputs, len(pixels))
        return [
            self._detections([output[i] for output in outputs], letterbox)
            for i, letterbox in enumerate(letterboxes)
        ]

    def _check(self, outputs: Sequence[NDArray[np.float32]], n: int) -> None:
        misfit = self._head.misfit(outputs, n)
        if misfit is not None:
            raise ModelError(f"{misfit}; convert the model again")
        for output in outputs:
            if not np.isfinite(output).all():
                raise DetectorUnavailable(
                    "the network's output is not a finite number: the model file is damaged, the "
                    "device computes wrongly, or the precision is too low for this model"
                )

    def _detections(
        self, outputs: Sequence[NDArray[np.float32]], letterbox: Letterbox
    ) -> Detections:
        net_xyxy, confidence, class_id = self._head.candidates(
            outputs, letterbox.net_wh, self._confidence_threshold
        )
        # Finite maps can still hold exp(100): a box without end has no place in a frame.
        if not np.isfinite(net_xyxy).all():
            raise DetectorUnavailable(
                "the network described a box without end: the model is damaged"
            )
        if not self._head.is_suppressed:
            keep = per_class_nms(net_xyxy, confidence, class_id, self._nms_threshold)
            net_xyxy, confidence, class_id = (
                NetXyxy(net_xyxy[keep]),
                confidence[keep],
                class_id[keep],
            )
        xyxy = letterbox.to_frame(net_xyxy)
        # A probability in half precision may come out a hair above one.
        confidence = np.minimum(confidence, np.float32(1))
        has_area = area(xyxy) > 0
        xyxy = FrameXyxy(xyxy[has_area])
        confidence, class_id = confidence[has_area], class_id[has_area]
        order = np.lexsort((*xyxy.T[::-1], class_id, -confidence))
        return Detections(FrameXyxy(xyxy[order]), confidence[order], class_id[order], self._labels)
