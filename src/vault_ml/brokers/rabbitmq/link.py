"""A thread that owns one connection to RabbitMQ, serves its heartbeats, and makes a new one.

Everything that touches the connection runs on this thread, as callbacks of pika's I/O loop. Other
threads hand work over by `call`.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pika
from pika.adapters.select_connection import IOLoop

from vault_ml.backoff import Backoff
from vault_ml.brokers.amqp_addresses import Address
from vault_ml.brokers.rabbitmq.options import RabbitOptions
from vault_ml.brokers.rabbitmq.status import Status
from vault_ml.errors import VaultMLError
from vault_ml.telemetry.log import Log

# A broker that is back is found within two seconds; one that is away is asked as seldom.
_RECONNECT = Backoff(0.1, 2.0)
_PING_AGAIN_S = 0.1
TICK_S = 0.25


class Link:
    """One connection after the other, until `stop`."""

    def __init__(
        self,
        options: RabbitOptions,
        status: Status,
        log: Log,
        *,
        name: str,
        prepare: Callable[[], None],
        on_up: Callable[[Any], None],
        on_down: Callable[[], None],
        on_tick: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        """Nothing happens before `start`.

        Args:
            options: how to connect.
            status: told how it goes.
            log: told of a bug that ended the thread.
            name: of the thread.
            prepare: runs before each try to connect; may block, may raise a `VaultMLError`.
            on_up: gets the connection (a pika `SelectConnection`) when it is open.
            on_down: after an open connection is gone.
            on_tick: about four times a second while connected.
            on_end: last, when the thread ends.

        The callables run on the link's thread.
        """
        self._options = options
        self._status = status
        self._log = log
        self._prepare = prepare
        self._on_up = on_up
        self._on_down = on_down
        self._on_tick = on_tick
        self._on_end = on_end
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # guards the two below
        self._loop: IOLoop | None = None
        self._connection: Any = None
        self._control: Any = None  # a channel for pings
        self._pause_s = 0.0
        self.crash: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def call(self, function: Callable[[], None]) -> bool:
        """Have `function` run on the link's thread, soon; False while there is no connection.

        It is forgotten when the connection is lost first, so it should only look at what there
        is to do.
        """
        with self._lock:
            if self._loop is None:
                return False
            self._loop.add_callback_threadsafe(function)
            return True

    def ping(self, timeout_s: float) -> None:
        """Return when the broker answers on this connection.

        Raises:
            BrokerUnavailable: no answer in time.
            ConfigError: it refuses us.
        """
        deadline = time.monotonic() + timeout_s
        answered = threading.Event()
        asked: list[Any] = [None]  # the channel we asked on; another connection is asked again
        while True:
            if asked[0] is None or asked[0] is not self._control:
                self.call(lambda: self._probe(asked, answered))
            if answered.wait(max(0.0, min(_PING_AGAIN_S, deadline - time.monotonic()))):
                return
            if refusal := self._status.refusal():
                raise refusal
            if time.monotonic() >= deadline:
                raise self._status.unavailable()

    def reconnect(self, after_s: float = 0.0) -> None:
        """Close the connection and make another one after `after_s`. The link's thread only."""
        self._pause_s = max(self._pause_s, after_s)
        self._close()

    def stop(self) -> None:
        """Close the connection and end the thread. Any thread; does not wait."""
        self._stopping.set()
        self.call(self._close)

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end; False when it still runs."""
        self._thread.join(max(0.0, timeout_s))
        return not self._thread.is_alive()

    # The link's thread.

    def _run(self) -> None:
        try:
            self._connect_for_ever()
        except BaseException as error:  # noqa: BLE001  a bug must not end the thread unheard
            self.crash = error
            self._log.error("broker_thread_failed", exc_info=error)
        finally:
            self._on_end()

    def _connect_for_ever(self) -> None:
        failures = itertools.count(1)
        while not self._stopping.is_set():
            self._pause_s = 0.0
            try:
                self._prepare()
                trouble = self._try_each_node()
            except VaultMLError as error:
                trouble = error
            if self._stopping.is_set():
                return
            if trouble is None:  # it was open, and was closed by us
                failures = itertools.count(1)
            else:
                self._status.failed(trouble)
            pause_s = max(self._pause_s, _RECONNECT.wait_s(next(failures)))
            self._stopping.wait(pause_s)

    def _try_each_node(self) -> BaseException | None:
        """Serve the first node that answers; returns why there is no connection any more."""
        trouble: BaseException | None = None
        for address in self._options.addresses:
            if self._stopping.is_set():
                return None
            was_open, trouble = self._serve(address)
            if was_open:
                return trouble
        return trouble

    def _serve(self, address: Address) -> tuple[bool, BaseException | None]:
        """Connect to one node and run the I/O loop until the connection is gone."""
        was_open = False
        trouble: BaseException | None = None
        loop = IOLoop()

        def opened(connection: Any) -> None:
            connection.channel(on_open_callback=control_opened)

        def control_opened(channel: Any) -> None:
            nonlocal was_open
            was_open = True
            self._control = channel
            self._status.came_up()
            self._on_up(channel.connection)
            self._tick(loop)

        def ended(_connection: Any, reason: BaseException) -> None:
            nonlocal trouble
            is_ours = isinstance(reason, pika.exceptions.ConnectionClosedByClient)
            trouble = None if is_ours else reason
            loop.stop()

        connection = pika.SelectConnection(
            self._options.parameters(address),
            on_open_callback=opened,
            on_open_error_callback=ended,
            on_close_callback=ended,
            custom_ioloop=loop,
        )
        with self._lock:
            self._loop, self._connection = loop, connection
        if self._stopping.is_set():
            self.call(self._close)
        try:
            loop.start()
        except (ValueError, OSError) as error:
            # What pika raises, and tells no callback, when the other side is gone between the
            # connection and the first word on it.
            if was_open:
                raise
            trouble = pika.exceptions.AMQPConnectionError(str(error))
        finally:
            with self._lock:
                self._loop = self._connection = None
            self._control = None
            loop.close()
            if was_open:
                self._on_down()
        return was_open, trouble

    def _tick(self, loop: IOLoop) -> None:
        if self._connection is not None and self._connection.is_open:
            self._on_tick()
            loop.call_later(TICK_S, lambda: self._tick(loop))

    def _probe(self, asked: list[Any], answered: threading.Event) -> None:
        if self._control is not None and self._control.is_open and asked[0] is not self._control:
            asked[0] = self._control
            # A question that changes nothing and needs no permission.
            self._control.basic_qos(prefetch_count=0, callback=lambda _frame: answered.set())

    def _close(self) -> None:
        connection = self._connection
        if connection is not None and not (connection.is_closing or connection.is_closed):
            connection.close()
