"""A web server that misbehaves on purpose: each route is a function that writes to the socket."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Ask:
    """One request as it came. `headers` has lower-case names."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


class Line:
    """The connection, for a route to answer on."""

    def __init__(self, connection: socket.socket, stopping: threading.Event) -> None:
        self._connection = connection
        self._stopping = stopping

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def wait(self, seconds: float | None = None) -> None:
        """Say nothing for a while, or until the server stops."""
        self._stopping.wait(seconds)

    def reset(self) -> None:
        """Close with a reset instead of an end of file."""
        linger = struct.pack("ii", 1, 0)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._connection.close()


Route = Callable[[Ask, Line], None]


def head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {text}" for name, text in headers.items())]
    return ("\r\n".join([*lines, "Connection: close"]) + "\r\n\r\n").encode()


def reply(status: int, body: bytes = b"", **headers: str) -> Route:
    """A whole, well-formed answer; header names with `_` for `-`."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return lambda ask, line: line.send(
        head(status, {"Content-Length": str(len(body)), **named}) + body
    )


def reply_json(status: int, data: object) -> Route:
    return reply(status, json.dumps({"data": data}).encode(), Content_Type="application/json")


def page(status: int) -> Route:
    return reply(status, b"<!doctype html><html>Sign in</html>", Content_Type="text/html")


def hang(ask: Ask, line: Line) -> None:
    line.wait()


def reset(ask: Ask, line: Line) -> None:
    line.reset()


def cut_off(body: bytes, *, announced: int) -> Route:
    return lambda ask, line: line.send(head(200, {"Content-Length": str(announced)}) + body)


def begin_then(body: bytes, *, announced: int, then: Route) -> Route:
    def route(ask: Ask, line: Line) -> None:
        line.send(head(200, {"Content-Length": str(announced)}) + body)
        then(ask, line)

    return route


def trickle(start: bytes, piece: bytes, *, every_s: float) -> Route:
    """`start`, then `piece` again and again for as long as the other side listens."""

    def route(ask: Ask, line: Line) -> None:
        line.send(start)
        for _ in range(1000):
            line.wait(every_s)
            line.send(piece)

    return route


def in_turn(*routes: Route) -> Route:
    """The first time the first, and so on; the last one for ever."""
    left = list(routes)
    return lambda ask, line: (left.pop(0) if len(left) > 1 else left[0])(ask, line)


class ScriptedServer:
    """Serves `routes`, keyed `"METHOD /path"`; everything else is a 404 in JSON."""

    def __init__(self, routes: Mapping[str, Route] | None = None) -> None:
        self.routes = dict(routes or {})
        self.asks: list[Ask] = []
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"http://{self.host}"

    def paths(self) -> list[str]:
        return [ask.path for ask in self.asks]

    def stop_listening(self) -> None:
        """Refuse connections from now on. Idempotent."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __enter__(self) -> Self:
        thread = threading.Thread(target=self._accept)
        self._threads.append(thread)
        thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self.stop_listening()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        # The other side may hang up at any moment; that is what many of these tests are about.
        with connection, contextlib.suppress(OSError):
            ask = _read(connection)
            if ask is None:
                return
            self.asks.append(ask)
            route = self.routes.get(f"{ask.method} {ask.path}", reply_json(404, "not found"))
            route(ask, Line(connection, self._stopping))
            # Say that nothing more comes, and hear the other side out: closing over unread bytes
            # would be a reset.
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(1)
            while connection.recv(65536):
                pass


def _read(connection: socket.socket) -> Ask | None:
    with connection.makefile("rb") as file:
        first = file.readline().decode("latin-1").split()
        if len(first) != 3:
            return None
        headers: dict[str, str] = {}
        while line := file.readline().decode("latin-1").strip():
            name, _, text = line.partition(":")
            headers[name.lower()] = text.strip()
        body = file.read(int(headers.get("content-length", "0")))
    return Ask(first[0], first[1], headers, body)
