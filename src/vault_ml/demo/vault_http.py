"""What the handlers of the embedded Vault share: refusals, and headers as the Vault reads them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import starlette.requests
from starlette.responses import JSONResponse, Response

from vault_ml.vault import protocol

Handler = Callable[[starlette.requests.Request], Awaitable[Response]]


class Refusal(Exception):
    """Ends a handler with a status and a text in `data`."""

    def __init__(self, status: int, data: str, headers: Mapping[str, str] | None = None) -> None:
        """Answer `status`, with `headers`."""
        super().__init__(data)
        self.status = status
        self.data = data
        self.headers = dict(headers or {})


def answering(handler: Handler) -> Handler:
    """A handler whose refusals are answers."""

    async def answer(request: starlette.requests.Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return JSONResponse({"data": refusal.data}, refusal.status, refusal.headers)
        except starlette.requests.ClientDisconnect:
            return Response(status_code=400)  # nobody reads it

    return answer


def header(request: starlette.requests.Request, name: str, *, is_needed: bool = True) -> str:
    """The value of a header, or nothing; a refusal where it is needed."""
    wanted = name.lower().encode()
    for given, value in request.scope["headers"]:
        if given == wanted and value:
            return protocol.header_text(value)
    if is_needed:
        raise Refusal(400, f"Header {name} is missing")
    return ""
