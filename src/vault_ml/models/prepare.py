"""From what `MODEL=` says to an ONNX file on disk.

Two steps. `resolve` finds the files and reads nothing but names. `prepare` reads them, converts
what needs converting, and keeps the result under the hash of its content: several workers may
share the cache and race, whoever comes second replaces the file by the same one.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vault_ml.errors import ModelError
from vault_ml.geometry import DARKNET_PLACING, Placing
from vault_ml.models.adopt import ADOPTION_VERSION, Adopted, adopt, load, metadata_of
from vault_ml.models.catalogue import KNOWN_MODELS, KnownModel
from vault_ml.models.package import find_in_package
from vault_ml.yolo.cfg import Network, parse_cfg
from vault_ml.yolo.corrections import Correction, correct
from vault_ml.yolo.head import heads_from_json
from vault_ml.yolo.labels import COCO, parse_names
from vault_ml.yolo.layer_table import layer_table
from vault_ml.yolo.metadata import (
    EXPORT_VERSION,
    METADATA_HEADS,
    METADATA_LABELS,
    METADATA_NET_WH,
    METADATA_PLACING,
)

if TYPE_CHECKING:  # only a conversion needs onnx, which takes long to import
    from onnx import ModelProto

AUTO = "auto"
_FULL, _TINY = "yolov3", "yolov3-tiny"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a model's files are. Either `cfg` and `weights`, or `onnx`.

    Attributes:
        name: for logs and results.
        cfg: darknet's network.
        weights: darknet's weights.
        onnx: a model that vault-ml converted before, or another project's.
        names: class names, one a line; without it a model's own, or for 80 classes COCO's.
        notes: sentences for the log about how it was chosen.
    """

    name: str
    cfg: Path | None
    weights: Path | None
    onnx: Path | None
    names: Path | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """A model that is ready to run.

    Attributes:
        name: for logs and results.
        sha256: digest of everything that determines its output, hexadecimal.
        onnx: the file to load.
        net_wh: size of its input, pixels.
        labels: class names.
        corrections: sentences for the log, one per correction applied.
        layer_table: darknet's table of layers; empty where the model came as ONNX.
        placing: how frames lie in its input.
        notes: other sentences for the log.
        family: how its output is read: `darknet`, `yolov8`, `yolox`, ...
    """

    name: str
    sha256: str
    onnx: Path
    net_wh: tuple[int, int]
    labels: tuple[str, ...]
    corrections: tuple[str, ...]
    layer_table: str
    placing: Placing = DARKNET_PLACING
    notes: tuple[str, ...] = ()
    family: str = "darknet"


def resolve(model: str, model_dir: Path, labels: Path | None = None) -> ModelFiles:
    """Find the files that `MODEL=` means.

    Args:
        model: `auto`, a known name, or a path to a `.cfg`, `.weights` or `.onnx` file.
        model_dir: folder with known models, each as `name.cfg` and `name.weights`, in it or in a
            folder of that name; a relative path is looked for there too.
        labels: a file of class names, instead of the one beside the model.

    Raises:
        ModelError: not found; the sentence says how to get it.
    """
    files = _resolve(model, model_dir)
    return files if labels is None else replace(files, names=labels)


def _resolve(model: str, model_dir: Path) -> ModelFiles:
    if model == AUTO:
        return _resolve_auto(model_dir)
    if model in KNOWN_MODELS:
        known = KNOWN_MODELS[model]
        files = _find_known(known, model_dir)
        if files is None:
            raise ModelError(
                f"MODEL={model}: {' and '.join(file.file_name for file in known.files)} are not in "
                f"{model_dir}; get them with: vault-ml models pull {model}"
            )
        return files
    return _resolve_path(model, model_dir)


def prepare(files: ModelFiles, cache_dir: Path, *, corrections: bool = True) -> PreparedModel:
    """Read the files; convert them unless the cache has the result.

    Args:
        files: as `resolve` found them.
        cache_dir: folder for converted models; is made. Its content may be deleted at any time.
        corrections: mend what is known to be wrong in published models.

    Raises:
        ModelError: the files are damaged, do not belong together, ask for something that is not
            supported, or the cache cannot be written.
    """
    if files.onnx is not None:
        return _prepare_onnx(files, files.onnx, cache_dir)
    if files.cfg is None or files.weights is None:
        raise ModelError(f"{files.name}: a darknet model is a .cfg and a .weights file")
    cfg_bytes = _read(files.cfg)
    weights_sha256 = _sha256_of(files.weights)
    network = parse_cfg(cfg_bytes.decode("utf-8", "replace"), files.cfg.name)
    applied: tuple[Correction, ...] = ()
    if corrections:
        network, applied = correct(network, weights_sha256)
    labels = _labels(files, network)
    table = layer_table(network)  # checks that the layers fit together, before the weights are read
    digest = _digest(
        {
            "cfg": hashlib.sha256(cfg_bytes).hexdigest(),
            "weights": weights_sha256,
            "corrections": [correction.name for correction in applied],
            "labels": labels,
            "export": EXPORT_VERSION,
        }
    )
    cached = cache_dir / f"{files.cfg.stem}-{digest[:32]}.onnx"
    if not cached.is_file():
        _convert(network, files.weights, labels, cached)
    return PreparedModel(
        name=files.name,
        sha256=digest,
        onnx=cached,
        net_wh=network.net_wh,
        labels=labels,
        corrections=tuple(correction.sentence for correction in applied),
        layer_table=table,
    )


def _resolve_auto(model_dir: Path) -> ModelFiles:
    full = _find_known(KNOWN_MODELS[_FULL], model_dir)
    if full is not None:
        return full
    tiny = _find_known(KNOWN_MODELS[_TINY], model_dir)
    if tiny is None:
        raise ModelError(
            f"MODEL=auto: neither {_FULL} nor {_TINY} is in {model_dir}; get the small one with: "
            f"vault-ml models pull {_TINY}, or the full one with: vault-ml models pull {_FULL}"
        )
    note = (
        f"MODEL=auto took {_TINY}, which is fast and misses more, because {_FULL} is not in "
        f"{model_dir}; get the full model with: vault-ml models pull {_FULL}"
    )
    return ModelFiles(tiny.name, tiny.cfg, tiny.weights, None, None, (*tiny.notes, note))


def _find_known(known: KnownModel, model_dir: Path) -> ModelFiles | None:
    """In the folder, in a folder of its name below it, or in an installed package."""
    for folder in (model_dir, model_dir / known.name):
        cfg, weights = (folder / file.file_name for file in known.files)
        if cfg.is_file() and weights.is_file():
            return ModelFiles(known.name, cfg, weights, None, None)
    found = find_in_package(known)
    if found is None:
        return None
    cfg, weights = found
    note = f"{known.name} comes from the installed Python package {known.package_name}"
    return ModelFiles(known.name, cfg, weights, None, None, (note,))


def _resolve_path(model: str, model_dir: Path) -> ModelFiles:
    path = Path(model).expanduser()
    if not path.exists() and (model_dir / path).exists():
        path = model_dir / path
    if path.suffix not in (".cfg", ".weights", ".onnx"):
        raise ModelError(
            f"MODEL={model}: this is neither {AUTO}, nor a known model "
            f"({', '.join(KNOWN_MODELS)}), nor a path to a .cfg, .weights or .onnx file"
        )
    if not path.is_file():
        raise ModelError(f"MODEL={model}: there is no such file, here or in {model_dir}")
    if path.suffix == ".onnx":
        return ModelFiles(path.stem, None, None, path, _names_beside(path))
    names = _sibling(path, ".names")
    other = ".weights" if path.suffix == ".cfg" else ".cfg"
    sibling = _sibling(path, other)
    if sibling is None:
        raise ModelError(
            f"MODEL={model}: the {other} file that belongs to it is not beside it; put it there "
            f"as {path.with_suffix(other).name}"
        )
    cfg, weights = (path, sibling) if other == ".weights" else (sibling, path)
    return ModelFiles(path.stem, cfg, weights, None, names)


def _sibling(path: Path, suffix: str) -> Path | None:
    """The file of the same name with `suffix`, else the only one with it in the folder."""
    same = path.with_suffix(suffix)
    if same.is_file():
        return same
    others = sorted(path.parent.glob(f"*{suffix}"))
    return others[0] if len(others) == 1 else None


def _names_beside(onnx: Path) -> Path | None:
    """The names of an ONNX model: of its own name only, since it usually brings some along."""
    beside = (onnx.with_suffix(suffix) for suffix in (".names", ".labels"))
    return next((path for path in beside if path.is_file()), None)


def _labels(files: ModelFiles, network: Network) -> tuple[str, ...]:
    classes = network.heads[0].classes
    if files.names is None:
        if classes == len(COCO):
            return COCO
        raise ModelError(
            f"{network.name} has {classes} classes, and nothing says what they are called; put "
            f"{Path(network.name).with_suffix('.names')} beside it, one name a line"
        )
    labels = _names_in(files.names)
    if len(labels) != classes:
        raise ModelError(
            f"{files.names.name} names {len(labels)} classes, {network.name} has {classes}"
        )
    return labels


def _names_in(path: Path) -> tuple[str, ...]:
    return parse_names(_read(path).decode("utf-8", "replace"), path.name)


def _convert(network: Network, weights: Path, labels: tuple[str, ...], target: Path) -> None:
    # Imported here: only a conversion needs onnx, which takes long to import.
    from vault_ml.yolo.export import to_onnx
    from vault_ml.yolo.weights import read_weights

    with _mapped(weights) as data:
        arrays = read_weights(data, weights.name, network)
        model = to_onnx(network, arrays, labels).SerializeToString()
        arrays.clear()
    write_atomically(target, model)


def write_atomically(target: Path, content: bytes) -> None:
    """Write beside `target`, then rename: a reader sees the whole file or none."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(prefix=f".{target.stem}-", dir=target.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)  # mkstemp's 0600 would lock out workers of another user
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ModelError(
            f"the converted model cannot be written to {target.parent}: {error.strerror}; make "
            "room there, or name another folder for converted models"
        ) from error


def _prepare_onnx(files: ModelFiles, path: Path, cache_dir: Path) -> PreparedModel:
    model = load(path)
    properties = metadata_of(model)
    if METADATA_HEADS in properties:
        return _converted_before(files, path, properties)
    names = None if files.names is None else _names_in(files.names)
    adopted = adopt(model, path.name, names)
    digest = _digest(
        {
            "onnx": _sha256_of(path),
            "head": adopted.head.family,
            "labels": adopted.labels,
            "adoption": ADOPTION_VERSION,
        }
    )
    cached = cache_dir / f"{path.stem}-{digest[:32]}.onnx"
    if not cached.is_file():
        write_atomically(cached, _serialized(model, path))
    return PreparedModel(
        name=files.name,
        sha256=digest,
        onnx=cached,
        net_wh=adopted.net_wh,
        labels=adopted.labels,
        corrections=(),
        layer_table="",
        placing=adopted.placing,
        notes=(_told(adopted), *adopted.notes),
        family=adopted.head.family,
    )


def _told(adopted: Adopted) -> str:
    return f"its output is read as that of {adopted.head.title}; it takes {adopted.takes}"


def _serialized(model: ModelProto, path: Path) -> bytes:
    from google.protobuf.message import EncodeError  # type: ignore[import-untyped]  # has no types

    try:
        content: bytes = model.SerializeToString()
    except (EncodeError, ValueError) as error:
        raise ModelError(f"{path.name} is larger than an ONNX file can be, 2 GB") from error
    return content


def _converted_before(
    files: ModelFiles, path: Path, properties: Mapping[str, str]
) -> PreparedModel:
    """A model with our metadata is used as it is."""
    try:
        family = heads_from_json(properties[METADATA_HEADS]).family
        width, height = json.loads(properties[METADATA_NET_WH])
        labels = tuple(str(label) for label in json.loads(properties[METADATA_LABELS]))
        placing = DARKNET_PLACING
        if METADATA_PLACING in properties:
            placing = Placing(**json.loads(properties[METADATA_PLACING]))
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"{path.name} says that vault-ml made it, but not how to use it; make it anew from the "
            ".cfg and .weights: vault-ml convert CFG WEIGHTS"
        ) from error
    if files.names is not None and _names_in(files.names) != labels:
        raise ModelError(
            f"{files.names.name} has other names than {path.name}, which vault-ml converted with "
            "its own; convert it again, with --names"
        )
    digest = _sha256_of(path)
    return PreparedModel(
        files.name, digest, path, (int(width), int(height)), labels, (), "", placing, (), family
    )


def _digest(parts: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def _sha256_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def _mapped(path: Path) -> Iterator[bytes | mmap.mmap]:
    """The file's bytes, mapped: 250 MB of weights need not be in memory twice."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            yield b""
            return
        # Not closed here: arrays may still look at it. It goes with the last of them.
        yield mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
