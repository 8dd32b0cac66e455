"""The HTTP API of the embedded Vault, as a Starlette application."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

import starlette.requests
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vault_ml.demo.vault_events import upload_event
from vault_ml.demo.vault_files import Files, Stored
from vault_ml.demo.vault_http import Handler, Refusal, answering, header
from vault_ml.demo.vault_tus import TUS, TusUploads
from vault_ml.vault import protocol

_PAGE = "<!doctype html><html><head><title>Kerberos Vault</title></head><body>Sign in</body></html>"
_MEDIA_TYPES = {".mp4": "video/mp4", ".mkv": "video/x-matroska", ".avi": "video/x-msvideo"}
_PIECE_BYTES = 64 * 1024
# Headers that describe an uploaded recording.
_DESCRIPTIONS = (
    protocol.DEVICE,
    protocol.CAPTURE,
    protocol.DIRECTORY,
    protocol.CLOUD_KEY,
    protocol.FPS,
    protocol.DURATION,
    protocol.TIMESTAMP,
)


@dataclass(slots=True)
class Account:
    """The only account: its keys, its storage provider, and where its Vault is."""

    url: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    provider: str


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as far as a test may want to know.

    Attributes:
        method: HTTP method.
        path: without the query.
        key: the recording named in the headers, or nothing.
        header_names: lower case, in order; no values.
        at: Unix seconds of its arrival.
        status: what was answered; 0 while nothing was.
    """

    method: str
    path: str
    key: str
    header_names: tuple[str, ...]
    at: float
    status: int = 0


class VaultApi:
    """Handlers and what they have seen."""

    def __init__(
        self,
        files: Files,
        account: Account,
        *,
        mount: Literal["both", "api", "root"],
        on_event: Callable[[bytes], None] | None,
        signed_url_ttl_s: float,
        signs_urls: bool,
        compresses_blobs: bool,
        forward: Callable[[str], None] | None,
        takes_tus: bool,
    ) -> None:
        """See `EmbeddedVault`."""
        self._files = files
        self._account = account
        self._on_event = on_event
        self._signed_url_ttl_s = signed_url_ttl_s
        self._signs_urls = signs_urls
        self._compresses_blobs = compresses_blobs
        self._forward = forward
        self._takes_tus = takes_tus
        self._prefix = "" if mount == "root" else "/api"
        self._has_page = mount != "root"
        self._tus = TusUploads(
            files.uploads_folder(),
            may_upload=self._may_upload,
            finish=self._stored_by_tus,
            address=lambda: f"{account.url}{self._prefix}{TUS}",
        )
        self._signing_key = secrets.token_bytes(32)
        self.metadata: list[tuple[str, bytes]] = []
        self.requests: list[Request] = []
        self.app: ASGIApp = self._logged(Starlette(routes=self._routes(mount)))

    def event(self, key: str, stored_at: int) -> bytes:
        """The event about a stored recording; KeyError when there is none."""
        stored = self._files.get(key)
        if stored is None:
            raise KeyError(key)
        return upload_event(
            key,
            size_bytes=stored.size_bytes,
            provider=self._account.provider,
            stored_at=stored_at,
            headers=stored.headers,
        )

    # --- routes ----------------------------------------------------------------------------------

    def _routes(self, mount: Literal["both", "api", "root"]) -> list[BaseRoute]:
        table: list[tuple[str, str, Handler]] = [
            (protocol.STORAGE, "GET", self._sign),  # Starlette answers HEAD by the same handler
            (protocol.STORAGE, "POST", self._upload),
            (protocol.STORAGE, "DELETE", self._remove),
            (protocol.BLOB, "GET", self._blob),
            (protocol.BULK, "POST", self._sign_many),
            (protocol.SIGNED, "GET", self._signed),
            (protocol.SIGNED_VALIDATE, "GET", self._validate),
            (protocol.FORWARD_MEDIA, "POST", self._forward_media),
            (protocol.FORWARD_METADATA, "POST", self._forward_metadata),
            (protocol.PING, "POST", self._ping),
            (protocol.HEALTH, "GET", self._health),
        ]
        table += self._tus.table() if self._takes_tus else [self._tus.refused()]
        routes: list[BaseRoute] = [
            Route(path, answering(handler), methods=[method]) for path, method, handler in table
        ]
        unknown = Route(
            "/{path:path}", self._unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]
        )
        mounted: list[BaseRoute] = [Mount("/api", routes=[*routes, unknown])]
        return [
            *(mounted if mount != "root" else []),
            *(routes if mount != "api" else []),
            unknown,
        ]

    def _logged(self, app: ASGIApp) -> ASGIApp:
        async def logged(scope: Scope, receive: Receive, send: Send) -> None:
            pairs = [(name.decode("latin-1").lower(), value) for name, value in scope["headers"]]
            key = dict(pairs).get(protocol.FILE_NAME.lower(), b"")
            number = len(self.requests)
            self.requests.append(
                Request(
                    scope["method"],
                    scope["path"],
                    protocol.header_text(key),
                    tuple(name for name, _ in pairs),
                    time.time(),
                )
            )

            async def send_noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    self.requests[number] = replace(self.requests[number], status=status)
                await send(message)

            await app(scope, receive, send_noted)

        return logged

    async def _unknown(self, request: starlette.requests.Request) -> Response:
        del request
        if self._has_page:
            return HTMLResponse(_PAGE)
        return PlainTextResponse("404 page not found", 404)

    # --- who asks, and for what ------------------------------------------------------------------

    def _check_keys(self, request: starlette.requests.Request) -> None:
        access_key = header(request, protocol.ACCESS_KEY)
        secret_key = header(request, protocol.SECRET_KEY)
        is_right = hmac.compare_digest(access_key.encode(), self._account.access_key.encode())
        is_right &= hmac.compare_digest(secret_key.encode(), self._account.secret_key.encode())
        if not is_right:
            # The real one repeats both keys: clients must not show this body to anybody.
            raise Refusal(401, f"No account with keys {access_key} and {secret_key}")

    def _check_provider(self, request: starlette.requests.Request, *, is_needed: bool) -> None:
        provider = header(request, protocol.PROVIDER, is_needed=is_needed)
        if provider and provider != self._account.provider:
            raise Refusal(401, f"Provider {provider} is not bound to this account")

    def _stored(self, request: starlette.requests.Request, *, needs_provider: bool) -> Stored:
        key = header(request, protocol.FILE_NAME)
        self._check_keys(request)
        self._check_provider(request, is_needed=needs_provider)
        stored = self._files.get(key)
        if stored is None:
            raise Refusal(404, "File not found")
        return stored

    # --- handlers --------------------------------------------------------------------------------

    async def _ping(self, request: starlette.requests.Request) -> Response:
        self._check_keys(request)
        self._check_provider(request, is_needed=False)
        return JSONResponse({"data": "pong"})

    async def _health(self, request: starlette.requests.Request) -> Response:
        del request
        return JSONResponse({"data": "healthy"})

    async def _sign(self, request: starlette.requests.Request) -> Response:
        if request.method == "HEAD":  # an Agent asks whether it may upload, not what is there
            header(request, protocol.FILE_NAME)
            self._check_keys(request)
            self._check_provider(request, is_needed=False)
            return JSONResponse({"data": ""})
        stored = self._stored(request, needs_provider=True)
        return JSONResponse({"data": self._signed_url(stored.key) if self._signs_urls else ""})

    async def _sign_many(self, request: starlette.requests.Request) -> Response:
        self._check_keys(request)
        try:
            wanted = [(entry["filename"], entry.get("provider")) for entry in await request.json()]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise Refusal(400, "Not an array of objects with filename") from None
        known = [
            (key, self._signed_url(key))
            for key, provider in wanted
            if provider in {None, self._account.provider} and self._files.get(key)
        ]
        return Response(protocol.bulk_reply(known), media_type="application/json")

    async def _blob(self, request: starlette.requests.Request) -> Response:
        stored = self._stored(request, needs_provider=True)
        headers = {"Content-Disposition": f"attachment; filename={_latin(stored.key)}"}
        if self._compresses_blobs:
            headers["Content-Encoding"] = "gzip"
            return StreamingResponse(
                _gzipped(stored.path), headers=headers, media_type=_media_type(stored.key)
            )
        headers["Content-Length"] = str(stored.size_bytes)
        return StreamingResponse(
            _pieces(stored.path), headers=headers, media_type=_media_type(stored.key)
        )

    async def _upload(self, request: starlette.requests.Request) -> Response:
        key = header(request, protocol.FILE_NAME)
        self._may_upload(request)
        headers = {name: header(request, name, is_needed=False) for name in _DESCRIPTIONS}
        with self._files.writing(key, headers) as file:
            async for piece in request.stream():
                file.write(piece)
        await self._announce(key)
        return JSONResponse({"data": "File uploaded"})

    def _may_upload(self, request: starlette.requests.Request) -> None:
        self._check_keys(request)
        self._check_provider(request, is_needed=False)

    async def _stored_by_tus(self, key: str, headers: Mapping[str, str], path: Path) -> None:
        self._files.adopt(key, headers, path)
        await self._announce(key)

    async def _announce(self, key: str) -> None:
        if self._on_event is not None:
            event = self.event(key, int(time.time()))
            try:
                await run_in_threadpool(self._on_event, event)
            except Exception as error:  # the callback is not ours
                raise Refusal(500, f"The event was not sent: {type(error).__name__}") from error

    async def _remove(self, request: starlette.requests.Request) -> Response:
        stored = self._stored(request, needs_provider=True)
        self._files.remove(stored.key)
        return JSONResponse({"data": "File deleted"})

    async def _forward_media(self, request: starlette.requests.Request) -> Response:
        stored = self._stored(request, needs_provider=False)
        if self._forward is None:
            raise Refusal(400, "No Vault integration to forward to")
        self._forward(stored.key)
        return JSONResponse({"data": "Queued"})

    async def _forward_metadata(self, request: starlette.requests.Request) -> Response:
        key = header(request, protocol.FILE_NAME)
        self._check_keys(request)
        self.metadata.append((key, await request.body()))
        return JSONResponse({"data": "Queued"})

    # --- signed URLs -----------------------------------------------------------------------------

    def _signed_url(self, key: str) -> str:
        expires = str(int(time.time() + self._signed_url_ttl_s))
        query = {
            "a": self._account.access_key,
            "p": self._account.provider,
            "f": key,
            "e": expires,
        }
        query["s"] = self._signature(query["a"], query["p"], key, expires)
        return f"{self._account.url}{self._prefix}{protocol.SIGNED}?{urlencode(query)}"

    def _signature(self, *parts: str) -> str:
        message = json.dumps(parts).encode()
        return hmac.new(self._signing_key, message, hashlib.sha256).hexdigest()

    def _check_signature(self, request: starlette.requests.Request) -> str:
        access_key, provider, key, expires, given = (
            request.query_params.get(name, "") for name in ("a", "p", "f", "e", "s")
        )
        wanted = self._signature(access_key, provider, key, expires)
        if not hmac.compare_digest(wanted.encode(), given.encode()):
            raise Refusal(403, "The signature does not fit")
        if int(expires) <= time.time():
            raise Refusal(403, "The URL has expired")
        return key

    async def _signed(self, request: starlette.requests.Request) -> Response:
        stored = self._files.get(self._check_signature(request))
        if stored is None:
            raise Refusal(404, "File not found")
        return FileResponse(stored.path, media_type=_media_type(stored.key))  # knows Range

    async def _validate(self, request: starlette.requests.Request) -> Response:
        self._check_signature(request)
        return JSONResponse({"data": True})


def _latin(text: str) -> str:
    """A header value that Starlette sends as UTF-8."""
    return text.encode().decode("latin-1")


def _media_type(key: str) -> str:
    return _MEDIA_TYPES.get(Path(key).suffix.lower(), "application/octet-stream")


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _gzipped(path: Path) -> Iterator[bytes]:
    deflater = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    for piece in _pieces(path):
        yield deflater.compress(piece)
    yield deflater.flush()
