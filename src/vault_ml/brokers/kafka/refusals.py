"""What it means when Kafka does not take a message."""

from __future__ import annotations

from confluent_kafka import KafkaError

from vault_ml.brokers.kafka import codes
from vault_ml.brokers.kafka.cluster import may_not_sentence
from vault_ml.brokers.port import Message
from vault_ml.errors import ConfigError, MessageTooLarge

# It was there when we looked, and was removed since.
NO_TOPIC = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    codes.UNKNOWN_TOPIC,
    codes.UNKNOWN_PARTITION,
}
_TOO_LARGE = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_MSG_SIZE,
}
_MAY_NOT = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
_REFUSED = {KafkaError.INVALID_RECORD, KafkaError.POLICY_VIOLATION}


def refusal(
    error: KafkaError, destination: str, message: Message
) -> MessageTooLarge | ConfigError | None:
    """The message's own trouble, or what a person must change; None when waiting may help."""
    code = error.code()
    if code in _TOO_LARGE:
        return MessageTooLarge(
            f"Kafka refuses a message of {len(message.body)} bytes on {destination!r}; "
            "its limit is max.message.bytes of the topic."
        )
    if code in _MAY_NOT:
        return ConfigError(may_not_sentence(destination))
    if code in _REFUSED:
        return ConfigError(
            f"The Kafka topic {destination!r} refuses our message ({error.name()}): "
            "its cleanup.policy or its schema rules do not fit."
        )
    return None
