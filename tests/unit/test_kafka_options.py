"""What an operator may say about Kafka, and what becomes of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from contract.kafka_system import SaidLog
from vault_ml.brokers.kafka import KafkaConsumer, KafkaOptions, KafkaProducer
from vault_ml.errors import ConfigError


def test_plaintext_sets_no_security_at_all() -> None:
    config = KafkaOptions("kafka:9092", "g").consumer()
    assert not [name for name in config if name.startswith(("sasl", "security", "ssl"))]


def test_the_contract_is_in_force() -> None:
    options = KafkaOptions("kafka:9092", "g")
    consumer, producer = options.consumer(), options.producer()
    assert consumer["enable.auto.commit"] is False
    assert consumer["enable.auto.offset.store"] is False
    assert consumer["auto.offset.reset"] == "error"
    assert consumer["group.id"] == "g"
    assert producer["enable.idempotence"] is True
    assert producer["acks"] == "all"


def test_the_originals_example_logs_in_by_plain() -> None:
    options = KafkaOptions("kafka:9092", "g", "user", "secret", "PLAIN", "SASL_PLAINTEXT")
    config = options.connection()
    assert config["security.protocol"] == "sasl_plaintext"
    assert config["sasl.mechanism"] == "PLAIN"
    assert (config["sasl.username"], config["sasl.password"]) == ("user", "secret")


def test_a_login_without_a_mechanism_is_plain() -> None:
    options = KafkaOptions("kafka:9092", "g", "user", "secret", security="sasl_ssl")
    assert options.connection()["sasl.mechanism"] == "PLAIN"


def test_oauthbearer_needs_no_username() -> None:
    options = KafkaOptions(
        "kafka:9092",
        "g",
        mechanism="OAUTHBEARER",
        security="SASL_SSL",
        extra={"sasl.oauthbearer.method": "oidc"},
    )
    assert "sasl.username" not in options.connection()
    assert options.connection()["sasl.oauthbearer.method"] == "oidc"


def test_a_username_without_sasl_in_security_is_not_sent() -> None:
    options = KafkaOptions("kafka:9092", "g", "user", "secret", security="SSL")
    assert "sasl.username" not in options.connection()


def test_the_password_does_not_show() -> None:
    options = KafkaOptions("kafka:9092", "g", "user", "canary", security="SASL_SSL")
    assert "canary" not in repr(options)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"brokers": " "}, "KAFKA_BROKER is empty"),
        ({"username": "u", "password": "p"}, "KAFKA_SECURITY is not"),
        ({"security": "SASL_SSL", "password": "p"}, "needs KAFKA_USERNAME"),
        ({"security": "SASL_SSL", "username": "u"}, "needs KAFKA_PASSWORD"),
        ({"extra": {"group.id": "x"}}, "use KAFKA_GROUP"),
        ({"extra": {"sasl.password": "x"}}, "use KAFKA_PASSWORD"),
        ({"extra": {"enable.auto.commit": "true"}}, "committed when its work is done"),
        ({"extra": {"auto.offset.reset": "latest"}}, "skips none"),
        ({"extra": {"acks": "0"}}, "all replicas"),
    ],
    ids=lambda value: str(value),
)
def test_what_cannot_work_is_refused_at_once(arguments: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        KafkaOptions(**{"brokers": "kafka:9092", "group": "g", **arguments})  # type: ignore[arg-type]  # the table mixes types


def test_other_librdkafka_options_pass_through() -> None:
    options = KafkaOptions("kafka:9092", "g", extra={"session.timeout.ms": "6000"})
    assert options.consumer()["session.timeout.ms"] == "6000"


def test_members_hear_of_a_rebalance_within_a_second_unless_told_otherwise() -> None:
    assert KafkaOptions("kafka:9092", "g").consumer()["heartbeat.interval.ms"] == 1000
    slower = KafkaOptions("kafka:9092", "g", extra={"heartbeat.interval.ms": "3000"})
    assert slower.consumer()["heartbeat.interval.ms"] == "3000"


def test_the_new_group_protocol_brings_its_own_assignor() -> None:
    options = KafkaOptions("kafka:9092", "g", extra={"group.protocol": "consumer"})
    # Refused by librdkafka with that protocol, as the assignor is.
    assert "heartbeat.interval.ms" not in options.consumer()
    assert "partition.assignment.strategy" not in options.consumer()


@pytest.mark.parametrize(
    ("extra", "named"),
    [({"no.such.option": "1"}, "no.such.option"), ({"session.timeout.ms": "x"}, "session.timeout")],
)
def test_what_librdkafka_does_not_take_is_named(extra: dict[str, str], named: str) -> None:
    options = KafkaOptions("kafka:9092", "g", extra=extra)
    with pytest.raises(ConfigError, match=named):
        KafkaConsumer(options, "q", log=SaidLog())
    with pytest.raises(ConfigError, match=named):
        KafkaProducer(options, log=SaidLog())


def test_a_mechanism_the_library_lacks_is_named() -> None:
    options = KafkaOptions("kafka:9092", "g", "u", "p", "GSSAPI", "SASL_SSL")
    with pytest.raises(ConfigError, match="GSSAPI"):
        KafkaConsumer(options, "q", log=SaidLog())


def test_without_confluent_kafka_the_sentence_says_how_to_get_it() -> None:
    script = (
        "import sys\n"
        "sys.modules['confluent_kafka'] = None\n"
        "sys.modules['confluent_kafka.cimpl'] = None\n"
        "from vault_ml.errors import ConfigError\n"
        "try:\n"
        "    import vault_ml.brokers.kafka\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
        "from vault_ml.demo.kafka_server import load_librdkafka\n"
        "try:\n"
        "    load_librdkafka()\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("pip install 'vault-ml[kafka]'") == 2
