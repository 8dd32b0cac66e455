"""RabbitMQ as a system for the contract suite."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pika

from connected.start_rabbitmq import MAX_MESSAGE_BYTES, Address, RabbitMQ
from contract.said_log import SaidLog
from vault_ml.brokers.browsing import HoldingBrowser
from vault_ml.brokers.rabbitmq import BROWSE, RabbitConsumer, RabbitOptions, RabbitProducer
from vault_ml.brokers.rabbitmq.limits import Limits

_SAFE_S = 3.0
QUIET_S = 1.0


class RabbitSystem:
    """RabbitMQ: ours, which may be killed, or somebody's, which may not."""

    def __init__(self, address: Address, server: RabbitMQ | None) -> None:
        self.address = address
        self.server = server
        self.can_go_down = server is not None
        self.max_message_bytes: int | None = MAX_MESSAGE_BYTES if server is not None else None
        self.log = SaidLog()
        self._declared_at = 0.0

    def options(self, **more: Any) -> RabbitOptions:
        address = self.address
        given: dict[str, Any] = {
            "host": address.host,
            "username": address.username,
            "password": address.password,
            "vhost": address.vhost,
            **more,
        }
        return RabbitOptions(**given)

    def new_name(self) -> str:
        """A queue that does not exist."""
        return f"vault-ml-test-{uuid.uuid4().hex[:8]}"

    def new_queue(self, partitions: int = 1) -> str:
        """A quorum queue as the Vault makes it."""
        name = self.new_name()
        self.declare(name, {"x-queue-type": "quorum"})
        return name

    def declare(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        with self.connect() as connection:
            connection.channel().queue_declare(name, durable=True, arguments=arguments or {})
        self._declared_at = time.monotonic()

    def connect(self) -> Any:
        """A connection of the test's own, to be used with `with`."""
        options = self.options()
        return pika.BlockingConnection([options.parameters(one) for one in options.addresses])

    def waiting_in(self, queue: str) -> int:
        """Messages that are ready to be delivered."""
        with self.connect() as connection:
            answer = connection.channel().queue_declare(queue, passive=True)
            return int(answer.method.message_count)

    def consumer(self, queue: str, limits: Limits | None = None, **more: Any) -> RabbitConsumer:
        return RabbitConsumer(self.options(**more), queue, log=self.log, limits=limits)

    def producer(self, **more: Any) -> RabbitProducer:
        return RabbitProducer(self.options(**more), log=self.log)

    def browser(self, queue: str) -> HoldingBrowser:
        return HoldingBrowser(
            lambda: RabbitConsumer(self.options(), queue, log=self.log, prefetch=BROWSE),
            quiet_s=QUIET_S,
        )

    def set_down(self) -> None:
        assert self.server is not None
        # RabbitMQ 3.10 never elects a leader again for a quorum queue that was declared in the
        # last second or so before its only node was killed.
        time.sleep(max(0.0, self._declared_at + _SAFE_S - time.monotonic()))
        self.server.kill()

    def set_up(self) -> None:
        assert self.server is not None
        self.server.start()
