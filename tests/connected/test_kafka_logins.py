"""Logging in to Apache Kafka: every listener, and what an operator reads when it is refused."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from connected.apache_kafka_system import ApacheKafkaSystem, kafka_options
from connected.start_kafka import OUTSIDER, Address
from contract.broker_contract import receive, settled, wait_for
from contract.kafka_system import SaidLog
from vault_ml.brokers.kafka import KafkaConsumer, KafkaProducer
from vault_ml.brokers.port import Message
from vault_ml.errors import BrokerUnavailable, ConfigError, CredentialsRejected

pytestmark = pytest.mark.connected


@pytest.mark.parametrize(
    ("security", "mechanism"),
    [
        ("PLAINTEXT", ""),
        ("SASL_PLAINTEXT", "PLAIN"),
        ("SASL_PLAINTEXT", "SCRAM-SHA-256"),
        ("SASL_PLAINTEXT", "SCRAM-SHA-512"),
        ("SSL", ""),
        ("SASL_SSL", "PLAIN"),
        ("SASL_SSL", "SCRAM-SHA-512"),
    ],
)
def test_a_message_goes_round_on_every_listener(
    own_kafka_system: ApacheKafkaSystem, security: str, mechanism: str
) -> None:
    server = own_kafka_system.server
    assert server is not None
    system = own_kafka_system.at(server.address(security, mechanism))
    queue = system.new_queue()
    producer, consumer = system.producer(), system.consumer(queue)
    try:
        producer.publish(queue, Message(b"1"), timeout_s=20)
        assert settled(receive(consumer).ack())
    finally:
        consumer.close(10)
        producer.close(10)


def refused(
    system: ApacheKafkaSystem,
    address: Address,
    kind: type[Exception],
    capfd: pytest.CaptureFixture[str],
) -> tuple[str, SaidLog]:
    """Everything we do is refused with `kind`, quietly; returns the sentence."""
    log = SaidLog()
    options = kafka_options(address, system.group)
    consumer = KafkaConsumer(options, "any-queue", log=log)
    producer = KafkaProducer(options, log=log)
    try:
        with pytest.raises(kind) as pinged:
            consumer.ping(3.0)
        with pytest.raises(kind):
            producer.ping(3.0)
        with pytest.raises(kind) as published:
            producer.publish("any-queue", Message(b"1"), timeout_s=3.0)
        assert str(published.value) == str(pinged.value)
    finally:
        consumer.close(5)
        producer.close(5)
    assert capfd.readouterr().err == "", "librdkafka wrote to standard error"
    assert len(log.events("broker_refused", "broker_unreachable")) <= 2, "said more than once each"
    return str(pinged.value), log


def test_a_wrong_password_is_one_sentence(
    own_kafka_system: ApacheKafkaSystem, capfd: pytest.CaptureFixture[str]
) -> None:
    address = replace(own_kafka_system.address, password="canary-7f3a")
    started = time.monotonic()
    sentence, log = refused(own_kafka_system, address, CredentialsRejected, capfd)
    assert time.monotonic() - started < 10
    assert sentence == (
        f"Kafka at {address.bootstrap} refused the login of 'yourusername' by PLAIN; "
        "check KAFKA_USERNAME and KAFKA_PASSWORD."
    )
    assert "canary-7f3a" not in str(log.said)


def test_receive_raises_while_the_login_is_refused(own_kafka_system: ApacheKafkaSystem) -> None:
    address = replace(own_kafka_system.address, password="wrong", mechanism="SCRAM-SHA-256")
    log = SaidLog()
    consumer = KafkaConsumer(kafka_options(address, "g"), "any-queue", log=log)
    try:
        with pytest.raises(CredentialsRejected, match="KAFKA_PASSWORD"):
            consumer.receive(20)
        with pytest.raises(CredentialsRejected, match="KAFKA_PASSWORD"):
            consumer.receive(0)
        assert len(log.events("broker_refused")) == 1
    finally:
        consumer.close(5)


def test_a_login_where_none_is_taken_is_one_sentence(
    own_kafka_system: ApacheKafkaSystem, capfd: pytest.CaptureFixture[str]
) -> None:
    assert own_kafka_system.server is not None
    plain = own_kafka_system.server.address("PLAINTEXT").bootstrap
    address = replace(own_kafka_system.address, bootstrap=plain)
    sentence, _ = refused(own_kafka_system, address, CredentialsRejected, capfd)
    assert "check KAFKA_SECURITY and KAFKA_MECHANISM" in sentence


@pytest.mark.parametrize("port_of", ["SASL_PLAINTEXT", "SSL"])
def test_plaintext_on_another_port_is_one_sentence(
    own_kafka_system: ApacheKafkaSystem, capfd: pytest.CaptureFixture[str], port_of: str
) -> None:
    assert own_kafka_system.server is not None
    address = Address(own_kafka_system.server.address(port_of).bootstrap)
    sentence, _ = refused(own_kafka_system, address, BrokerUnavailable, capfd)
    assert "another protocol than KAFKA_SECURITY=PLAINTEXT" in sentence


def test_an_unknown_authority_is_one_sentence(
    own_kafka_system: ApacheKafkaSystem, capfd: pytest.CaptureFixture[str]
) -> None:
    assert own_kafka_system.server is not None
    address = replace(own_kafka_system.server.address("SSL"), ca_file="")
    sentence, _ = refused(own_kafka_system, address, BrokerUnavailable, capfd)
    assert "ssl.ca.location" in sentence


def test_a_topic_that_is_not_for_us_is_a_configuration_error(
    own_kafka_system: ApacheKafkaSystem,
) -> None:
    queue = own_kafka_system.new_queue()
    outsider = own_kafka_system.at(replace(own_kafka_system.address, username=OUTSIDER))
    consumer, producer = outsider.consumer(queue), outsider.producer()
    try:
        consumer.ping(10)  # the login itself is fine
        with pytest.raises(ConfigError, match="does not let our user use the topic"):
            consumer.receive(20)
        with pytest.raises(ConfigError, match="does not let our user use the topic"):
            producer.publish(queue, Message(b"1"), timeout_s=10)
        with pytest.raises(ConfigError, match="does not let our user use the topic"):
            producer.publish("a-topic-nobody-made", Message(b"1"), timeout_s=10)
    finally:
        consumer.close(5)
        producer.close(5)


def test_a_missing_topic_is_made_and_the_log_says_so(kafka_system: ApacheKafkaSystem) -> None:
    queue = f"{kafka_system.group}-made"
    consumer, producer = kafka_system.consumer(queue), kafka_system.producer()
    try:
        assert consumer.receive(1.0) is None
        producer.publish(queue, Message(b"1"), timeout_s=20)
        assert receive(consumer).message.body == b"1"
        wait_for(lambda: bool(kafka_system.log.events("topic_created")), "it was said")
        producer.publish(f"{queue}.dlq", Message(b"1"), timeout_s=20)
    finally:
        consumer.close(5)
        producer.close(5)


def test_a_name_no_topic_can_have_is_a_configuration_error(kafka_system: ApacheKafkaSystem) -> None:
    producer = kafka_system.producer()
    try:
        with pytest.raises(ConfigError, match="cannot be the name of a Kafka topic"):
            producer.publish("ml queue", Message(b"1"), timeout_s=10)
    finally:
        producer.close(5)
