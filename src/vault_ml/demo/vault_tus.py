"""Uploads in several pieces, as a newer Agent sends them: tus 1.0.0 with creation and termination.

Source: the protocol at tus.io, and what public clients of the Vault send. Keys are asked for when
an upload is made; its address cannot be guessed, so the later requests need none.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import starlette.requests
from starlette.responses import Response

from vault_ml.demo.vault_http import Handler, Refusal, header
from vault_ml.vault import protocol

TUS = "/storage/tus/"
_VERSION = {"Tus-Resumable": "1.0.0"}
_MAX_BYTES = 1 << 30
_PIECE_TYPE = "application/offset+octet-stream"
# The names in Upload-Metadata, and the headers that say the same of an upload in one piece.
_DESCRIPTIONS = {
    "device": protocol.DEVICE,
    "capture": protocol.CAPTURE,
    "directory": protocol.DIRECTORY,
    "cloudkey": protocol.CLOUD_KEY,
    "fps": protocol.FPS,
    "duration": protocol.DURATION,
    "timestamp": protocol.TIMESTAMP,
}


@dataclass(slots=True)
class _Upload:
    key: str
    size_bytes: int
    path: Path
    headers: dict[str, str] = field(default_factory=dict)
    offset: int = 0
    is_busy: bool = False


class TusUploads:
    """Uploads that have begun. Handlers run on one event loop."""

    def __init__(
        self,
        folder: Path,
        *,
        may_upload: Callable[[starlette.requests.Request], None],
        finish: Callable[[str, Mapping[str, str], Path], Awaitable[None]],
        address: Callable[[], str],
    ) -> None:
        """Let uploads grow in `folder`.

        Args:
            folder: made when it is needed.
            may_upload: raises a `Refusal` for who may not.
            finish: takes a whole upload over: key, headers, file.
            address: of this route.
        """
        self._folder = folder
        self._may_upload = may_upload
        self._finish = finish
        self._address = address
        self._uploads: dict[str, _Upload] = {}

    def table(self) -> list[tuple[str, str, Handler]]:
        """Path, method and handler of each route."""
        one = TUS + "{upload}"
        return [
            (TUS, "OPTIONS", self._options),
            (TUS, "POST", self._create),
            (one, "HEAD", self._head),
            (one, "PATCH", self._patch),
            (one, "DELETE", self._delete),
        ]

    @staticmethod
    def refused() -> tuple[str, str, Handler]:
        """The route of a Vault that takes no such uploads."""

        async def no_such_route(request: starlette.requests.Request) -> Response:
            del request
            raise Refusal(404, "Not found")

        return (TUS, "POST", no_such_route)

    async def _options(self, request: starlette.requests.Request) -> Response:
        del request
        told = {"Tus-Version": "1.0.0", "Tus-Extension": "creation,termination"}
        return Response(status_code=204, headers={**told, "Tus-Max-Size": str(_MAX_BYTES)})

    async def _create(self, request: starlette.requests.Request) -> Response:
        _check_version(request)
        self._may_upload(request)
        size = _number(request, "Upload-Length")
        if size > _MAX_BYTES:
            raise Refusal(413, "Too large", _VERSION)
        told = _metadata(header(request, "Upload-Metadata"))
        if not told.get("filename"):
            raise Refusal(400, "Upload-Metadata has no filename", _VERSION)
        self._folder.mkdir(exist_ok=True)
        name = secrets.token_urlsafe(16)
        upload = _Upload(
            told["filename"],
            size,
            self._folder / name,
            {_DESCRIPTIONS[key]: told[key] for key in _DESCRIPTIONS if told.get(key)},
        )
        upload.path.touch()
        self._uploads[name] = upload
        if not size:
            await self._complete(name, upload)
        return Response(status_code=201, headers={**_VERSION, "Location": self._address() + name})

    async def _head(self, request: starlette.requests.Request) -> Response:
        _, upload = self._upload(request)
        headers = {"Upload-Offset": str(upload.offset), "Upload-Length": str(upload.size_bytes)}
        return Response(headers={**_VERSION, **headers, "Cache-Control": "no-store"})

    async def _patch(self, request: starlette.requests.Request) -> Response:
        name, upload = self._upload(request)
        if header(request, "Content-Type").partition(";")[0].strip() != _PIECE_TYPE:
            raise Refusal(415, f"Not {_PIECE_TYPE}", _VERSION)
        if _number(request, "Upload-Offset") != upload.offset or upload.is_busy:
            raise Refusal(409, "Not the offset where the upload is", _VERSION)
        begun_at = upload.offset
        upload.is_busy = True
        try:
            with upload.path.open("r+b") as file:
                file.seek(upload.offset)
                # What arrived stays, also when the connection breaks: that is what tus is for.
                async for piece in request.stream():
                    if upload.offset + len(piece) > upload.size_bytes:
                        raise Refusal(413, "More than Upload-Length", _VERSION)
                    file.write(piece)
                    upload.offset += len(piece)
        finally:
            upload.is_busy = False
        if upload.offset == upload.size_bytes:
            try:
                await self._complete(name, upload)
            except BaseException:
                upload.offset = begun_at  # so that the last piece is sent again
                raise
        return Response(status_code=204, headers={**_VERSION, "Upload-Offset": str(upload.offset)})

    async def _delete(self, request: starlette.requests.Request) -> Response:
        name, upload = self._upload(request)
        del self._uploads[name]
        upload.path.unlink(missing_ok=True)
        return Response(status_code=204, headers=_VERSION)

    async def _complete(self, name: str, upload: _Upload) -> None:
        # A twin is handed over: if that fails, the upload goes on from the last piece.
        twin = upload.path.with_suffix(".whole")
        twin.unlink(missing_ok=True)
        twin.hardlink_to(upload.path)
        await self._finish(upload.key, upload.headers, twin)
        upload.path.unlink()
        del self._uploads[name]

    def _upload(self, request: starlette.requests.Request) -> tuple[str, _Upload]:
        _check_version(request)
        name = request.path_params["upload"]
        if name not in self._uploads:
            raise Refusal(404, "No such upload", _VERSION)
        return name, self._uploads[name]


def _check_version(request: starlette.requests.Request) -> None:
    if header(request, "Tus-Resumable", is_needed=False) != _VERSION["Tus-Resumable"]:
        raise Refusal(412, "Only tus 1.0.0", {"Tus-Version": "1.0.0"})


def _number(request: starlette.requests.Request, name: str) -> int:
    text = header(request, name)
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Refusal(400, f"{name} is not a number", _VERSION)
    return int(text)


def _metadata(text: str) -> dict[str, str]:
    """`filename dXNlci8xLm1wNA==,device Y2Ft` -> names and texts."""
    found = {}
    for pair in text.split(","):
        name, _, value = pair.strip().partition(" ")
        try:
            found[name] = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, ValueError):
            raise Refusal(400, "Upload-Metadata is not base64 of UTF-8", _VERSION) from None
    return found
