"""Looking at files on this machine: the same decoders and detector, without broker or Vault."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vault_ml.detection import Detections
from vault_ml.detector_process import DetectorProcess
from vault_ml.errors import ConfigError
from vault_ml.models.prepare import prepare, resolve
from vault_ml.runtime_for import RuntimePlan, runtime_for
from vault_ml.vault.encrypted import RecordingKeys
from vault_ml.video.decoder_pool import DecodeLimits, DecoderPool
from vault_ml.video.sampling import Sampling


@dataclass(frozen=True, slots=True)
class LookedAt:
    """One frame and what was seen in it.

    Attributes:
        index: 0-based position among the looked-at frames.
        timestamp_s: presentation time, seconds since the first frame.
        detections: boxes in frame pixels.
        picture: (h, w, 3) uint8 RGB of the whole frame, where it was asked for.
    """

    index: int
    timestamp_s: float
    detections: Detections
    picture: NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True)
class LookedAtFile:
    """What was seen in a file. `size_wh` is the size of its frames in pixels."""

    size_wh: tuple[int, int]
    frames: tuple[LookedAt, ...]


class LocalDetection:
    """A decoder pool and a detector, ready for files."""

    def __init__(
        self,
        plan: RuntimePlan,
        decoders: DecoderPool,
        detector: DetectorProcess,
        *,
        frames: int,
        sampling: Sampling,
        keep_pictures: bool,
        keys: RecordingKeys,
    ) -> None:
        """Use started collaborators; `start` makes them."""
        self._plan = plan
        self._model = plan.model
        self._decoders = decoders
        self._detector = detector
        self._frames = frames
        self._sampling = sampling
        self._keep_pictures = keep_pictures
        self._keys = keys

    @classmethod
    @contextmanager
    def start(
        cls,
        *,
        model: str,
        confidence_threshold: float,
        nms_threshold: float,
        frames: int,
        sampling: str,
        keep_pictures: bool,
        model_dir: Path,
        cache_dir: Path,
        recording_keys: Sequence[str] = (),
        model_labels: Path | None = None,
        runtime: str = "auto",
        precision: str = "fp32",
        rect: bool = False,
        may_measure: bool = False,
        decoder_count: int = 2,
    ) -> Iterator[LocalDetection]:
        """Prepare the model, start the children, and end them afterwards.

        Raises:
            ModelError: the model cannot be found or loaded.
        """
        if sampling not in set(Sampling):
            raise ConfigError(f"the sampling must be one of {', '.join(Sampling)}, not {sampling}")
        plan = runtime_for(
            prepare(resolve(model, model_dir, model_labels), cache_dir),
            runtime=runtime,
            precision=precision,
            rect=rect,
            model_dir=model_dir,
            cache_dir=cache_dir,
            may_measure=may_measure,
        )
        with ExitStack() as stack:
            detector = DetectorProcess(
                plan.model,
                plan.detector_options(
                    confidence_threshold=confidence_threshold, nms_threshold=nms_threshold
                ),
            )
            stack.callback(detector.close)
            detector.start()
            decoders = DecoderPool(decoder_count, DecodeLimits())
            stack.callback(decoders.close)
            decoders.start()
            yield cls(
                plan,
                decoders,
                detector,
                frames=frames,
                sampling=Sampling(sampling),
                keep_pictures=keep_pictures,
                keys=RecordingKeys(recording_keys),
            )

    def about(self) -> dict[str, Any]:
        """The model and what it runs on, for `--json`."""
        info = self._detector.info
        return {
            "name": self._model.name,
            "sha256": self._model.sha256,
            "runtime": info.runtime,
            "device": info.device,
            "precision": info.precision,
        }

    def look(self, fd: int) -> LookedAtFile:
        """Look at the file behind `fd`, which stays the caller's.

        Raises:
            UndecodableRecording, RecordingTooLarge, DecoderFailed: as `DecoderPool.decode`.
            RecordingEncrypted: it is encrypted and no key fits.
            DetectorUnavailable: the detector died; it is being replaced.
        """
        with self._decoders.decode(
            self._keys.unlocked(fd),
            frames=self._frames,
            sampling=self._sampling,
            net_wh=self._model.net_wh,
            placing=self._model.placing,
            keep_pictures=self._keep_pictures,
            rect=self._plan.rect,
        ) as decoded:
            seen = self._detector.detect(decoded.shared, decoded.frames)
            return LookedAtFile(
                decoded.frames[0].size_wh,
                tuple(
                    LookedAt(
                        frame.index,
                        frame.timestamp_s,
                        detections,
                        decoded.picture(frame.index) if self._keep_pictures else None,
                    )
                    for frame, detections in zip(decoded.frames, seen, strict=True)
                ),
            )
