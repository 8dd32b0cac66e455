"""Apache Kafka, through librdkafka.

`options` is the configuration, `connection` and `cluster` say how the brokers are doing and make
topics. `attempts`, `partition` and `books` keep count of what is in our hands, `commits` settles
it, or `transactional` and `transactions` do. `consumer` and `producer` are the two halves of the
port, `browser` looks through dead letters.

Raises:
    ConfigError: on import, when confluent-kafka is not installed.
"""

from __future__ import annotations

from vault_ml.errors import ConfigError

try:
    import confluent_kafka as _confluent_kafka
except ImportError as error:
    raise ConfigError(
        "QUEUE_SYSTEM=KAFKA needs the package confluent-kafka: pip install 'vault-ml[kafka]'"
    ) from error

from vault_ml.brokers.kafka.browser import KafkaBrowser
from vault_ml.brokers.kafka.consumer import KafkaConsumer
from vault_ml.brokers.kafka.options import KafkaOptions
from vault_ml.brokers.kafka.producer import KafkaProducer
from vault_ml.brokers.kafka.transactional import check_transactions

__all__ = ["KafkaBrowser", "KafkaConsumer", "KafkaOptions", "KafkaProducer", "check_transactions"]

LIBRDKAFKA_VERSION: str = _confluent_kafka.libversion()[0]
