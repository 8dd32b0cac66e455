"""RabbitMQ, through pika.

`options` says how it is reached, `link` is a thread that owns a connection, `status` puts its
troubles into sentences, `topology` finds or makes queues, `limits` holds the broker's
patience against ours, `wire` is what a message looks like in AMQP, `leases` keeps the books of
what is in our hands, `consumer` and `producer` are the two halves of the port.

Raises:
    ConfigError: on import, when pika is not installed.
"""

from __future__ import annotations

import logging

from vault_ml.errors import ConfigError

try:
    import pika as _pika
except ImportError as error:
    raise ConfigError(
        "QUEUE_SYSTEM=RABBITMQ needs the package pika: pip install 'vault-ml[rabbitmq]'"
    ) from error

from vault_ml.brokers.rabbitmq.consumer import RabbitConsumer
from vault_ml.brokers.rabbitmq.limits import check_limits
from vault_ml.brokers.rabbitmq.options import RabbitOptions
from vault_ml.brokers.rabbitmq.producer import RabbitProducer

__all__ = ["BROWSE", "RabbitConsumer", "RabbitOptions", "RabbitProducer", "check_limits"]

# It reports every failed connection in a dozen lines, each time. We say it in one, once.
logging.getLogger("pika").setLevel(logging.CRITICAL)

BROWSE = 60_000
"""A prefetch for looking through a queue: all of it, as far as AMQP can say so."""

PIKA_VERSION: str = _pika.__version__
