"""`vault-ml detect`: photos and clips on this machine, without broker or Vault."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vault_ml.cli.progress import progress
from vault_ml.errors import ConfigError, VaultMLError

if TYPE_CHECKING:
    from vault_ml.local import LookedAt, LookedAtFile

_SUFFIXES = frozenset(
    ".jpg .jpeg .png .bmp .webp .mp4 .m4v .mov .mkv .webm .avi .ts".split()  # noqa: SIM905
)


def detect(
    paths: Annotated[
        list[Path], typer.Argument(help="Photos, clips, or folders of them.", metavar="FILE|FOLDER")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per file on standard output.")
    ] = False,
    confidence: Annotated[
        float,
        typer.Option(
            min=0.0001, max=1.0, envvar="CONFIDENCE_THRESHOLD",
            help="Leave out objects seen with less confidence.",
        ),
    ] = 0.5,
    nms: Annotated[
        float,
        typer.Option(
            min=0.0001, max=1.0, envvar="NMS_THRESHOLD",
            help="Boxes of one class that overlap more than this are one object.",
        ),
    ] = 0.45,
    frames: Annotated[
        int,
        typer.Option(
            min=1, max=1000, envvar="NUMBER_OF_PREDICTIONS",
            help="How many frames of a clip are looked at, spread over all of it.",
        ),
    ] = 5,
    sampling: Annotated[
        str,
        typer.Option(
            envvar="FRAME_SAMPLING", metavar="keyframe|exact|adaptive",
            help="Take the nearest key frame, the frame at the exact time, or those where "
            "something happens.",
        ),
    ] = "keyframe",
    annotate: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write pictures with boxes into this folder."),
    ] = None,
    model: Annotated[
        str, typer.Option(envvar="MODEL", help="A known name, or a .cfg, .weights or .onnx file.")
    ] = "auto",
    model_dir: Annotated[
        Path | None, typer.Option(envvar="MODEL_DIR", metavar="DIR", help="Folder of the models.")
    ] = None,
    model_labels: Annotated[
        Path | None,
        typer.Option(
            envvar="MODEL_LABELS", metavar="FILE",
            help="Class names, one a line, instead of the model's own.",
        ),
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(envvar="CACHE_DIR", metavar="DIR", help="Folder for converted models."),
    ] = None,
) -> None:  # fmt: skip
    """Say what is seen on photos and clips.

    A file that cannot be looked at is named with the reason; the others go on, and the command
    ends with 1. Encrypted recordings are decrypted with the keys in RECORDING_KEYS.
    """
    from vault_ml.local import LocalDetection
    from vault_ml.models.folders import default_cache_dir, default_model_dir
    from vault_ml.settings import keys_of_recordings

    files = list(_files(paths))
    failed = 0
    with LocalDetection.start(
        model=model,
        confidence_threshold=confidence,
        nms_threshold=nms,
        frames=frames,
        sampling=sampling,
        keep_pictures=annotate is not None,
        model_dir=model_dir or default_model_dir(),
        cache_dir=cache_dir or default_cache_dir(),
        recording_keys=keys_of_recordings(os.environ),
        model_labels=model_labels,
    ) as local:
        if annotate is not None:
            annotate.mkdir(parents=True, exist_ok=True)
        about = local.about()
        # Two at a time: one is decoded while the other is in the network.
        with ThreadPoolExecutor(2) as pool, progress("looking", len(files)) as advance:
            for path, outcome in zip(files, pool.map(_attempt(local), files), strict=True):
                advance(path.name)
                if isinstance(outcome, VaultMLError):
                    failed += 1
                    print(f"vault-ml: {path}: {outcome}", file=sys.stderr)
                    if as_json:
                        error = {"type": type(outcome).__name__, "message": str(outcome)}
                        print(json.dumps({"file": str(path), "error": error}), flush=True)
                    continue
                print(_as_json(path, outcome, about) if as_json else _as_text(path, outcome),
                      flush=True)  # fmt: skip
                if annotate is not None:
                    _write_pictures(path, outcome, annotate)
    if failed:
        raise typer.Exit(1)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES)
            if not inside:
                raise ConfigError(f"{path} holds no photo or clip ({', '.join(sorted(_SUFFIXES))})")
            yield from inside
        elif path.exists():
            yield path
        else:
            raise ConfigError(f"{path} does not exist")


def _attempt(local: Any) -> Any:  # LocalDetection; imported late
    def look(path: Path) -> LookedAtFile | VaultMLError:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            return VaultMLError(f"cannot be opened: {error.strerror}")
        try:
            return local.look(fd)  # type: ignore[no-any-return]
        except ConfigError:
            raise
        except VaultMLError as error:
            return error
        finally:
            os.close(fd)

    return look


def _as_json(path: Path, looked: LookedAtFile, about: dict[str, Any]) -> str:
    width, height = looked.size_wh
    return json.dumps(
        {
            "file": str(path),
            "width": width,
            "height": height,
            "frames": [
                {
                    "index": frame.index,
                    "timestamp_s": round(frame.timestamp_s, 6),
                    "detections": [
                        {
                            "label": frame.detections.label(i),
                            "confidence": float(frame.detections.confidence[i]),
                            "box": [float(v) for v in frame.detections.xyxy[i]],
                        }
                        for i in range(len(frame.detections))
                    ],
                }
                for frame in looked.frames
            ],
            "model": about,
        },
        allow_nan=False,
    )


def _seen(frame: LookedAt) -> str:
    seen = frame.detections
    return (
        ", ".join(f"{seen.label(i)} {seen.confidence[i]:.0%}" for i in range(len(seen)))
        or "nothing"
    )


def _as_text(path: Path, looked: LookedAtFile) -> str:
    width, height = looked.size_wh
    head = f"{path}  {width}x{height}"
    if len(looked.frames) == 1:
        return f"{head}  {_seen(looked.frames[0])}"
    rows = [f"  {frame.timestamp_s:7.2f} s  {_seen(frame)}" for frame in looked.frames]
    return "\n".join([head, *rows])


def _write_pictures(path: Path, looked: LookedAtFile, folder: Path) -> None:
    from vault_ml.annotate import annotate, to_jpeg

    for frame in looked.frames:
        if frame.picture is None:
            continue
        time = "" if len(looked.frames) == 1 else f"_{frame.timestamp_s:07.2f}s"
        target = folder / f"{path.stem}{time}.jpg"
        target.write_bytes(to_jpeg(annotate(frame.picture, frame.detections)))
