"""A TCP proxy in front of a server: slow, cut off, away, as told and as the seed says.

In front of the Vault it knows one thing of HTTP: which recording the last request on a connection
was about. A reply is cut off at most once per recording, because what is cut off again and again
is that recording's own trouble, and may end as a dead letter.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Literal
from urllib.parse import unquote_plus

from proof.history import Fault
from proof.plan import Weather

Mode = Literal["open", "refuses", "resets", "errs", "hangs"]

_KEY = re.compile(rb"(?i)x-kerberos-storage-filename: *([^\r\n]+)|[?&]f=([^& ]+)")
_UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)
_PIECE = 65536


class UnreliableWay:
    """The way to one server, from a thread of its own."""

    def __init__(
        self, seed: str, weather: Weather, *, to: Literal["vault", "hub", "broker"] = "vault"
    ) -> None:
        """Listen; `lead_to` says where to.

        Args:
            seed: of the weather.
            weather: how often replies are disturbed.
            to: whom it is in front of; unless it is a Vault, any reply may be cut off.
        """
        self._rng = random.Random(f"way {seed}")
        self._weather = weather
        self._target = 0
        self._mode: Mode = "open"
        self._cut: set[str] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._faults: list[Fault] = []
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="way", daemon=True)
        self._thread.start()
        self._leads_to = to
        self.port = 0
        self._do(self._listen())

    def lead_to(self, port: int) -> None:
        """Lead to this port of the loopback interface."""
        self._target = port

    @property
    def url(self) -> str:
        """As HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def faults(self) -> list[Fault]:
        """What the weather did so far."""
        return list(self._faults)

    def set_weather(self, weather: Weather) -> None:
        """From now on."""
        self._weather = weather

    def set_mode(self, mode: Mode) -> None:
        """Change what becomes of connections; the open ones end."""
        self._do(self._change(mode))

    def close(self) -> None:
        """End it."""
        self._do(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- on the loop -----------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _change(self, mode: Mode) -> None:
        self._mode = mode
        if mode == "refuses" and self._server is not None:
            self._server.close()
            self._server = None
        elif mode != "refuses" and self._server is None:
            await self._listen()
        for writer in list(self._writers):
            _abort(writer)

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            _abort(writer)
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if rest:  # a stalled reply takes a moment
            await asyncio.wait(rest, timeout=5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                if self._mode == "open":
                    await self._pass_on(reader, writer)
                elif self._mode == "errs":
                    await reader.read(_PIECE)
                    writer.write(_UNAVAILABLE)
                    await writer.drain()
                elif self._mode == "hangs":
                    while await reader.read(_PIECE):  # until `_change` ends it
                        pass
                else:
                    _abort(writer)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers.add(back_writer)
        key = ""

        def notice(piece: bytes) -> None:
            nonlocal key
            if found := _KEY.search(piece):
                key = unquote_plus((found[1] or found[2]).decode(errors="replace"))

        async def there() -> None:
            while piece := await reader.read(_PIECE):
                notice(piece)
                back_writer.write(piece)
                await back_writer.drain()
            back_writer.write_eof()

        request = asyncio.ensure_future(there())
        try:
            await self._back(back_reader, writer, lambda: key)
        finally:
            request.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await request
            self._writers.discard(back_writer)
            back_writer.close()

    async def _back(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: Callable[[], str]
    ) -> None:
        while piece := await reader.read(_PIECE):
            fate, weather = self._rng.random(), self._weather
            if fate < weather.cut and self._may_cut(key()):
                self._cut.add(key())
                self._note("cut", key())
                writer.write(piece[: self._rng.randrange(len(piece))])
                await writer.drain()
                if self._rng.random() < 0.5:
                    _abort(writer)
                return
            if weather.cut <= fate < weather.cut + weather.stall:
                seconds = self._rng.uniform(0.2, 1.5)
                self._note("stall", key(), seconds)
                await asyncio.sleep(seconds)
            elif fate > 1 - weather.trickle:
                self._note("trickle", key())
                size = max(1, len(piece) // 20)
                for start in range(0, len(piece), size):
                    writer.write(piece[start : start + size])
                    await writer.drain()
                    await asyncio.sleep(0.02)
                continue
            writer.write(piece)
            await writer.drain()

    def _may_cut(self, key: str) -> bool:
        return self._leads_to != "vault" or (bool(key) and key not in self._cut)

    def _note(self, kind: str, key: str, seconds: float = 0.0) -> None:
        kind = f"weather to the {self._leads_to}: {kind}"
        self._faults.append(Fault(time.time(), kind, key, seconds))


def _abort(writer: asyncio.StreamWriter) -> None:
    """End a connection by reset where the system lets us."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
