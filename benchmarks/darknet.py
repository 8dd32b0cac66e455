"""The original's engine: darknet in C, as its fork with AVX and OpenMP is published for Rust.

The crate `darknet-sys` holds the sources; `make` builds them in a minute. DARKNET_LIBRARY names a
library that is there already.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_CRATE = "darknet-sys"
_VERSION = "0.4.0"
_MANIFEST = f"""[package]
name = "none"
version = "0.0.0"
edition = "2021"
[lib]
path = "none.rs"
[dependencies]
{_CRATE} = "={_VERSION}"
"""


class NoDarknet(Exception):
    """It cannot be had here; the sentence says why."""


def library(cache: Path) -> Path:
    """The shared library, built when it is not there yet.

    Raises:
        NoDarknet: no cargo, no compiler, or the sources cannot be fetched.
    """
    if "DARKNET_LIBRARY" in os.environ:
        return Path(os.environ["DARKNET_LIBRARY"])
    built = cache / f"libdarknet-{_VERSION}.so"
    if built.is_file():
        return built
    for tool in ("cargo", "make", "gcc", "g++"):
        if shutil.which(tool) is None:
            raise NoDarknet(f"{tool} is not installed, and DARKNET_LIBRARY is not set")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "Cargo.toml").write_text(_MANIFEST)
        (folder / "none.rs").touch()
        _run("cargo", "vendor", "--quiet", "vendor", cwd=folder)
        sources = folder / "vendor" / _CRATE / "darknet"
        _run("make", "AVX=1", "OPENMP=1", "LIBSO=1", "libdarknet.so", cwd=sources)
        cache.mkdir(parents=True, exist_ok=True)
        shutil.copy(sources / "libdarknet.so", built)
    return built


def _run(*words: str, cwd: Path) -> None:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        *_, last = done.stderr.strip().splitlines() or ["no word why"]
        raise NoDarknet(f"`{' '.join(words)}` failed: {last}")


class Darknet:
    """A network loaded by darknet; one thread's at a time."""

    def __init__(self, shared_object: Path, cfg: Path, weights: Path) -> None:
        """Load it; darknet prints its layers."""
        self._c = ctypes.CDLL(str(shared_object))
        self._c.load_network_custom.restype = ctypes.c_void_p
        self._c.network_predict_ptr.restype = ctypes.c_void_p
        keep, batch = 0, 1
        self._net = ctypes.c_void_p(
            self._c.load_network_custom(os.fsencode(cfg), os.fsencode(weights), keep, batch)
        )

    def infer(self, image: NDArray[np.float32]) -> None:
        """Run the network on one (3, h, w) picture of its size."""
        pointer = image.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        self._c.network_predict_ptr(self._net, pointer)
