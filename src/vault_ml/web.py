"""`/healthz`, `/readyz` and `/metrics`, on a thread of their own."""

from __future__ import annotations

import errno
import json
import socket
import threading
from types import TracebackType
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vault_ml.errors import ConfigError
from vault_ml.telemetry.health import Health
from vault_ml.telemetry.metrics import Metrics

_START_WITHIN_S = 10.0
_STOP_WITHIN_S = 5.0
_BACKLOG = 64
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def application(health: Health, metrics: Metrics) -> Starlette:
    """The pages.

    `/healthz`: 200 while the loop moves, else 503. `/readyz`: 200 when events are worked on, else
    503, with the reasons by name. `/metrics`: Prometheus' text format.
    """

    # Plain functions: Starlette runs them in threads, so a slow answer holds up no other.
    def healthz(_request: Request) -> Response:
        stalled_for_s = health.stalled_for_s()
        if stalled_for_s is None:
            return _json({"alive": True}, 200)
        reason = f"the loop has not moved for {stalled_for_s:.0f} s"
        return _json({"alive": False, "reason": reason}, 503)

    def readyz(_request: Request) -> Response:
        reasons = health.unready_reasons()
        return _json({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    def all_metrics(_request: Request) -> Response:
        body, content_type = metrics.render()
        return Response(body, headers={"Content-Type": content_type, **_HEADERS})

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", all_metrics),
        ]
    )


def _json(document: dict[str, object], status: int) -> Response:
    body = json.dumps(document, ensure_ascii=False) + "\n"
    return Response(body, status, headers=_HEADERS, media_type="application/json")


class WebServer:
    """The server; `start` and `stop` once each."""

    def __init__(self, host: str, port: int, *, health: Health, metrics: Metrics) -> None:
        """Serve on `host` and `port`; 0 takes a free one, which `url` then tells."""
        self._host = host
        self._port = port
        self._server = _Server(
            uvicorn.Config(
                application(health, metrics),
                log_config=None,  # ours is already there
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="off",
                loop="asyncio",
                http="h11",
                ws="none",
                timeout_graceful_shutdown=1,
            )
        )
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it is, such as `http://127.0.0.1:8080`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def start(self) -> None:
        """Return when it answers.

        Raises:
            ConfigError: the address is taken, not ours, or needs more rights.
        """
        listening = self._listen()
        self._port = listening.getsockname()[1]
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), name="web", daemon=True
        )
        self._thread.start()
        if not self._server.is_up.wait(_START_WITHIN_S):
            self.stop()
            raise ConfigError(
                f"WEB_ADDRESS: nothing answers at {self.url} after {_START_WITHIN_S} s"
            )

    def stop(self) -> None:
        """Stop answering. Idempotent; returns in time."""
        if self._thread is None:
            return
        self._server.should_exit = True
        self._server.force_exit = True  # a probe that is cut off asks again
        self._thread.join(_STOP_WITHIN_S)
        self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _listen(self) -> socket.socket:
        where = f"WEB_ADDRESS: cannot listen on {self._host}:{self._port}"
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
        except OSError as error:
            raise ConfigError(f"{where}: the host is unknown; name an address of ours") from error
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            reason = _REASONS.get(error.errno or 0, error.strerror or "the system refuses")
            raise ConfigError(f"{where}: {reason}") from error
        return listening


_REASONS = {
    errno.EADDRINUSE: "another program uses it; choose another port, or `off`",
    errno.EADDRNOTAVAIL: "this machine does not have that address; try 0.0.0.0",
    errno.EACCES: "ports below 1024 need more rights; choose a higher one",
}


class _Server(uvicorn.Server):
    """uvicorn's server, saying when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()
