"""librdkafka's own error codes. confluent-kafka documents them under names with an underscore."""

# ruff: noqa: SLF001  (the underscore marks a local error, not a private name)

from __future__ import annotations

from confluent_kafka import KafkaError

ALL_BROKERS_DOWN = KafkaError._ALL_BROKERS_DOWN
AUTHENTICATION = KafkaError._AUTHENTICATION
AUTO_OFFSET_RESET = KafkaError._AUTO_OFFSET_RESET
FATAL = KafkaError._FATAL
MAX_POLL_EXCEEDED = KafkaError._MAX_POLL_EXCEEDED
PARTITION_EOF = KafkaError._PARTITION_EOF
QUEUE_FULL = KafkaError._QUEUE_FULL
RESOLVE = KafkaError._RESOLVE
SSL = KafkaError._SSL
STATE = KafkaError._STATE
TIMED_OUT = KafkaError._TIMED_OUT
TRANSPORT = KafkaError._TRANSPORT
UNKNOWN_PARTITION = KafkaError._UNKNOWN_PARTITION
UNKNOWN_TOPIC = KafkaError._UNKNOWN_TOPIC
UNSUPPORTED_FEATURE = KafkaError._UNSUPPORTED_FEATURE
