"""Where the embedded Vault keeps recordings: files in a folder, named by a digest.

A key comes from the wire, so it never becomes a path: `../../etc/passwd` is a recording like any
other. What a digest cannot tell (the key itself, what it was uploaded with) stands beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored recording: its key, where its bytes are, what it was uploaded with."""

    key: str
    path: Path
    headers: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        """Length of the recording."""
        return self.path.stat().st_size


class Files:
    """The recordings in one folder. Any thread, several processes one after another."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`; made when it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    @contextlib.contextmanager
    def writing(self, key: str, headers: Mapping[str, str]) -> Iterator[BinaryIO]:
        """A file to write the recording to; it appears under its key, whole, at the end."""
        fd, name = tempfile.mkstemp(dir=self._folder, prefix="upload-")
        try:
            with os.fdopen(fd, "wb") as file:
                yield file
            self.adopt(key, headers, Path(name))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def uploads_folder(self) -> Path:
        """Where uploads in several pieces grow until they are adopted; not made yet."""
        return self._folder / "uploads"

    def adopt(self, key: str, headers: Mapping[str, str], content: Path) -> None:
        """Take a whole file over as the recording."""
        path = self._path(key)
        about = content.with_suffix(".about")
        about.write_text(json.dumps({"key": key, "headers": dict(headers)}), encoding="utf-8")
        about.replace(path.with_suffix(".json"))  # a reader sees all of it or nothing
        content.replace(path)

    def get(self, key: str) -> Stored | None:
        """The recording, or None."""
        path = self._path(key)
        about = _about(path.with_suffix(".json"))
        return Stored(key, path, about["headers"]) if about and path.exists() else None

    def remove(self, key: str) -> bool:
        """Delete it; False when it was not there."""
        path = self._path(key)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        path.with_suffix(".json").unlink(missing_ok=True)
        return True

    def keys(self) -> tuple[str, ...]:
        """The keys of all recordings, sorted."""
        abouts = filter(None, map(_about, self._folder.glob("*.json")))
        return tuple(sorted(about["key"] for about in abouts if self.get(about["key"])))

    def _path(self, key: str) -> Path:
        return (
            self._folder / f"{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}.bin"
        )


def _about(path: Path) -> dict[str, Any] | None:
    """What stands beside a recording; None where it is not there, or was just removed."""
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return about
