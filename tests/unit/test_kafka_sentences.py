"""What librdkafka says, in our words, once."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from contract.kafka_system import SaidLog
from vault_ml.brokers.kafka import codes
from vault_ml.brokers.kafka.connection import (
    Connection,
    State,
    hung_up_at_once,
    reason_of,
    weakness_of,
)
from vault_ml.brokers.kafka.options import KafkaOptions
from vault_ml.errors import CredentialsRejected

OPTIONS = KafkaOptions("kafka:9092", "g", "user", "canary", "SCRAM-SHA-256", "SASL_SSL")

LOGIN_REFUSED = KafkaError(codes.AUTHENTICATION, "SASL authentication error: Authentication failed")
ALL_DOWN = KafkaError(codes.ALL_BROKERS_DOWN, "1/1 brokers are down")


def make(options: KafkaOptions = OPTIONS) -> tuple[Connection, SaidLog]:
    log = SaidLog()
    return Connection(options, log, "consumer"), log


def test_a_refused_login_is_said_once_however_often_it_is_refused() -> None:
    connection, log = make()
    for _ in range(100):
        connection.on_error(LOGIN_REFUSED)
        connection.on_error(ALL_DOWN)
    assert len(log.said) == 1
    refusal = connection.refusal()
    assert isinstance(refusal, CredentialsRejected)
    assert str(refusal) == (
        "Kafka at kafka:9092 refused the login of 'user' by SCRAM-SHA-256; "
        "check KAFKA_USERNAME and KAFKA_PASSWORD."
    )
    assert connection.refusal() is not refusal, "one for every thread"


def test_an_outage_is_said_once_and_so_is_its_end() -> None:
    connection, log = make()
    for _ in range(50):
        connection.on_error(KafkaError(codes.TRANSPORT, "Connect to x failed: Connection refused"))
        connection.on_error(ALL_DOWN)
    for _ in range(50):
        connection.came_up()
    assert [event for event, _ in log.said] == ["broker_unreachable", "broker_reachable"]
    assert "connection refused" in str(log.said[0][1]["reason"])
    assert connection.state is State.UP


def test_a_state_that_flaps_does_not_flood() -> None:
    connection, log = make()
    for _ in range(50):
        connection.on_error(ALL_DOWN)
        connection.came_up()
    assert len(log.events("broker_unreachable")) == 1


def test_a_login_that_is_taken_again_ends_the_refusal() -> None:
    connection, log = make()
    connection.on_error(LOGIN_REFUSED)
    connection.came_up()
    assert connection.refusal() is None
    assert len(log.events("broker_reachable")) == 1


def test_a_port_without_logins_is_told_from_a_wrong_password() -> None:
    connection, _ = make()
    connection.on_error(
        KafkaError(codes.AUTHENTICATION, "SASL PLAIN mechanism handshake failed: x")
    )
    assert "does not take logins by SCRAM-SHA-256" in str(connection.refusal())


def test_a_refused_token_names_its_options() -> None:
    connection, _ = make(KafkaOptions("k:1", "g", mechanism="OAUTHBEARER", security="SASL_SSL"))
    connection.on_error(LOGIN_REFUSED)
    assert "sasl.oauthbearer" in str(connection.refusal())


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (codes.RESOLVE, "Failed to resolve", "not known to DNS"),
        (codes.SSL, "certificate verify failed", "ssl.ca.location"),
        (codes.SSL, "wrong version number", "another protocol"),
        (codes.TRANSPORT, "SSL handshake failed: Disconnected", "another protocol"),
        (codes.TRANSPORT, "Connection refused", "is it running"),
        (codes.TRANSPORT, "Connection setup timed out in state CONNECT", "firewall"),
        (codes.TRANSPORT, "Disconnected", ""),
    ],
)
def test_reasons_are_in_our_words(code: int, text: str, expected: str) -> None:
    reason = reason_of(code, text, OPTIONS)
    assert expected in reason
    assert bool(reason) == bool(expected)


def test_a_port_that_hangs_up_at_once_speaks_another_protocol() -> None:
    connection, _ = make(KafkaOptions("kafka:9092", "g"))
    logger = connection.librdkafka_logger()
    logger.warning("127.0.0.1:1/bootstrap: Disconnected (after 93000ms in state UP)")
    assert str(connection.unavailable()) == "Kafka at kafka:9092 does not answer."
    logger.warning("127.0.0.1:1/bootstrap: Disconnected (after 2ms in state APIVERSION_QUERY)")
    assert "another protocol than KAFKA_SECURITY=PLAINTEXT" in str(connection.unavailable())
    assert not hung_up_at_once("something else")


def test_a_client_that_may_stop_for_good_is_told_of() -> None:
    assert weakness_of((2, 10, 1)) is None
    assert weakness_of((2, 11, 1)) is None
    for version in ((2, 12, 0), (2, 16, 1), (3, 0, 0)):
        assert "2.11.1" in str(weakness_of(version))
    assert "librdkafka 2.16.1" in str(weakness_of((2, 16, 1)))
