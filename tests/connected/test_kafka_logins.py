"""Logging in to Apache Kafka: every listener, and what an operator reads when it is refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from connected.apache_kafka_system import ApacheKafkaSystem, kafka_options
from connected.start_kafka import OUTSIDER, Address
from connected.token_issuer import CLIENT_ID, CLIENT_SECRET, LIFETIME_S, TokenIssuer
from contract.broker_contract import JOIN_S, receive, settled, wait_for
from contract.kafka_system import SaidLog
from vault_ml.brokers.kafka import KafkaConsumer, KafkaOptions, KafkaProducer
from vault_ml.brokers.port import Message
from vault_ml.errors import BrokerUnavailable, ConfigError, CredentialsRejected

pytestmark = [pytest.mark.connected, pytest.mark.timeout(300)]

_ASK_S = 1.0


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
        ("MTLS", ""),
    ],
)
def test_a_message_goes_round_on_every_listener(
    own_kafka_system: ApacheKafkaSystem, security: str, mechanism: str
) -> None:
    server = own_kafka_system.server
    assert server is not None
    system = own_kafka_system.at(server.address(security, mechanism))
    goes_round(system)


def goes_round(system: ApacheKafkaSystem) -> None:
    queue = system.new_queue()
    producer, consumer = system.producer(), system.consumer(queue)
    try:
        producer.publish(queue, Message(b"1"), timeout_s=JOIN_S)
        assert settled(receive(consumer).ack())
    finally:
        consumer.close(10)
        producer.close(10)


def with_tokens(
    system: ApacheKafkaSystem, security: str, endpoint: str, secret: str = CLIENT_SECRET
) -> ApacheKafkaSystem:
    """The same broker, for whoever fetches tokens at `endpoint`, by librdkafka's own options."""
    assert system.server is not None
    address = system.server.address(security, "OAUTHBEARER")
    changed = system.at(replace(address, username="", password=""))
    changed.extra = {
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": endpoint,
        "sasl.oauthbearer.client.id": CLIENT_ID,
        "sasl.oauthbearer.client.secret": secret,
    }
    return changed


@pytest.mark.parametrize("security", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_a_message_goes_round_with_a_token(
    own_kafka_system: ApacheKafkaSystem, security: str
) -> None:
    assert own_kafka_system.server is not None
    issuer = own_kafka_system.server.issuer
    before = issuer.issued
    with issuer.endpoint() as endpoint:
        goes_round(with_tokens(own_kafka_system, security, endpoint))
    assert issuer.issued > before


def test_a_token_is_replaced_before_it_ends(own_kafka_system: ApacheKafkaSystem) -> None:
    assert own_kafka_system.server is not None
    issuer = own_kafka_system.server.issuer
    with issuer.endpoint() as endpoint:
        system = with_tokens(own_kafka_system, "SASL_PLAINTEXT", endpoint)
        queue = system.new_queue()
        producer, consumer = system.producer(), system.consumer(queue)
        try:
            before, until = issuer.issued, time.monotonic() + LIFETIME_S
            while time.monotonic() < until or issuer.issued < before + 4:
                producer.publish(queue, Message(b"1"), timeout_s=JOIN_S)
                assert settled(receive(consumer).ack())
                assert time.monotonic() < until + JOIN_S
            assert not system.log.events("broker_refused")
        finally:
            consumer.close(10)
            producer.close(10)


def test_a_token_of_somebody_else_is_one_sentence(
    own_kafka_system: ApacheKafkaSystem, capfd: pytest.CaptureFixture[str]
) -> None:
    assert own_kafka_system.server is not None
    with TokenIssuer().endpoint() as endpoint:
        system = with_tokens(own_kafka_system, "SASL_PLAINTEXT", endpoint)
        sentence, _ = refused(system, system.address, CredentialsRejected, capfd)
    assert "refused our token" in sentence
    assert "sasl.oauthbearer" in sentence


def test_an_issuer_that_gives_no_token_is_one_sentence(
    own_kafka_system: ApacheKafkaSystem, capfd: pytest.CaptureFixture[str]
) -> None:
    assert own_kafka_system.server is not None
    with own_kafka_system.server.issuer.endpoint() as endpoint:
        system = with_tokens(own_kafka_system, "SASL_PLAINTEXT", endpoint, "wrong-canary")
        sentence, log = refused(system, system.address, CredentialsRejected, capfd)
    assert sentence.startswith("No token was given to us for Kafka at")
    assert "wrong-canary" not in sentence + str(log.said)


@pytest.mark.parametrize("client", ["", "stranger.pem"])
def test_a_client_certificate_that_the_broker_does_not_take_is_one_sentence(
    own_kafka_system: ApacheKafkaSystem, capfd: pytest.CaptureFixture[str], client: str
) -> None:
    server = own_kafka_system.server
    assert server is not None
    file = str(server.folder / client) if client else ""
    address = replace(server.address("MTLS"), client_file=file)
    sentence, _ = refused(own_kafka_system, address, BrokerUnavailable, capfd)
    assert "ssl.certificate.location" in sentence


def refused(
    system: ApacheKafkaSystem,
    address: Address,
    kind: type[Exception],
    capfd: pytest.CaptureFixture[str],
) -> tuple[str, SaidLog]:
    """Everything we do is refused with `kind`, quietly; returns the sentence."""
    log = SaidLog()
    options = kafka_options(address, system.group, system.extra)
    consumer = KafkaConsumer(options, "any-queue", log=log)
    producer = KafkaProducer(options, log=log)
    message = Message(b"1")
    try:
        sentence = told(lambda: consumer.ping(_ASK_S), kind)
        told(lambda: producer.ping(_ASK_S), kind, sentence)
        told(lambda: producer.publish("any-queue", message, timeout_s=_ASK_S), kind, sentence)
    finally:
        consumer.close(5)
        producer.close(5)
    assert capfd.readouterr().err == "", "librdkafka wrote to standard error"
    assert len(log.events("broker_refused", "broker_unreachable")) <= 2, "said more than once each"
    return sentence, log


def told(act: Callable[[], None], kind: type[Exception], sentence: str = "") -> str:
    """What is said when `act` is refused, once the reason is known: a busy machine takes a while.

    Without a reason a broker "does not answer."; with one, "does not answer (...)."
    """
    deadline = time.monotonic() + JOIN_S
    while True:
        with pytest.raises(kind) as refusal:
            act()
        said = str(refusal.value)
        if said == sentence or (not sentence and not said.endswith("does not answer.")):
            return said
        assert time.monotonic() < deadline, f"{said!r} instead of {sentence!r}"


def test_a_wrong_password_is_one_sentence(
    own_kafka_system: ApacheKafkaSystem, capfd: pytest.CaptureFixture[str]
) -> None:
    address = replace(own_kafka_system.address, password="canary-7f3a")
    sentence, log = refused(own_kafka_system, address, CredentialsRejected, capfd)
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


def test_a_mechanism_that_librdkafka_does_not_have_is_one_sentence() -> None:
    options = KafkaOptions("127.0.0.1:9", "g", mechanism="GSSAPI", security="SASL_SSL")
    with pytest.raises(
        ConfigError, match=r"KAFKA_MECHANISM=GSSAPI is not in .*it has PLAIN, SCRAM"
    ):
        KafkaProducer(options, log=SaidLog())


def test_a_name_no_topic_can_have_is_a_configuration_error(kafka_system: ApacheKafkaSystem) -> None:
    producer = kafka_system.producer()
    try:
        with pytest.raises(ConfigError, match="cannot be the name of a Kafka topic"):
            producer.publish("ml queue", Message(b"1"), timeout_s=10)
    finally:
        producer.close(5)
