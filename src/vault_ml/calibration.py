"""Photos and clips of a folder -> letterboxed pictures, and what people marked in them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vault_ml.agreement import Marked
from vault_ml.errors import ConfigError, VaultMLError
from vault_ml.geometry import Letterbox
from vault_ml.models.prepare import PreparedModel
from vault_ml.video.decoder_pool import DecoderPool
from vault_ml.video.sampling import Sampling

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".mp4", ".m4v", ".mov", ".mkv"})
_FRAMES_PER_FILE = 5


@dataclass(frozen=True, slots=True)
class Example:
    """One picture to calibrate or to compare with.

    Attributes:
        name: of its file, and which frame.
        pixels: (h, w, 3) uint8 RGB at the network's size.
        letterbox: where the frame lies in it.
        marked: what a person marked; None where there is no label file.
    """

    name: str
    pixels: NDArray[np.uint8]
    letterbox: Letterbox
    marked: Marked | None


def files_in(folder: Path) -> list[Path]:
    """Photos and clips, also below, in an order that says nothing of their names.

    Raises:
        ConfigError: there is none.
    """
    found = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    if not found:
        raise ConfigError(f"{folder} holds no photo or clip to calibrate with")
    return sorted(found, key=lambda path: hashlib.sha256(path.name.encode()).digest())


def load(
    files: Sequence[Path], model: PreparedModel, on_each: Callable[[str], None]
) -> list[Example]:
    """Decode the files, in the same jailed children as recordings.

    A clip gives several pictures. What cannot be decoded is left out.

    Raises:
        ConfigError: nothing can be decoded.
    """
    examples: list[Example] = []
    with DecoderPool(1) as pool:
        for path in files:
            try:
                examples += _pictures(pool, path, model)
            except ConfigError:
                raise
            except (VaultMLError, OSError):
                pass
            on_each(path.name)
    if not examples:
        raise ConfigError("none of the photos and clips can be decoded")
    return examples


def _pictures(pool: DecoderPool, path: Path, model: PreparedModel) -> list[Example]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        decoded = pool.decode(
            fd,
            frames=_FRAMES_PER_FILE,
            sampling=Sampling.KEYFRAME,
            net_wh=model.net_wh,
            placing=model.placing,
        )
    finally:
        os.close(fd)
    with decoded:
        return [
            Example(
                path.name if len(decoded.frames) == 1 else f"{path.name}#{frame.index}",
                frame.pixels.copy(),
                frame.letterbox,
                marked_in(path, frame.size_wh) if len(decoded.frames) == 1 else None,
            )
            for frame in decoded.frames
        ]


def marked_in(photo: Path, size_wh: tuple[int, int]) -> Marked | None:
    """The label file of a photo, as YOLO's tools write it: class, centre and size as fractions.

    Beside the photo, or in `labels/` beside its folder. None where there is none.

    Raises:
        ConfigError: a line of it is something else.
    """
    for path in (photo.with_suffix(".txt"), photo.parent.parent / "labels" / f"{photo.stem}.txt"):
        if path.is_file():
            break
    else:
        return None
    try:
        rows = [[float(word) for word in line.split()] for line in path.read_text().splitlines()]
        values = np.array([row for row in rows if row], np.float64).reshape(-1, 5)
    except ValueError:
        raise ConfigError(f"{path} is not a label file: class, x, y, w, h on each line") from None
    centre, sides = values[:, 1:3], values[:, 3:5]
    fractions = np.concatenate([centre - sides / 2, centre + sides / 2], axis=1)
    xyxy = (fractions * np.array([*size_wh, *size_wh])).astype(np.float32)
    return Marked(xyxy, values[:, 0].astype(np.int64))
