"""What an operator reads when RabbitMQ refuses us, or a queue, or an exchange."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import httpx
import pytest

from connected.rabbitmq_system import RabbitSystem
from connected.start_rabbitmq import Address
from contract.broker_contract import CLOSE_S, JOIN_S, receive, settled, wait_for
from contract.said_log import SaidLog
from vault_ml.brokers.port import Message
from vault_ml.brokers.rabbitmq import RabbitConsumer, RabbitProducer, check_limits
from vault_ml.errors import BrokerUnavailable, ConfigError, CredentialsRejected, MessageTooLarge

pytestmark = [pytest.mark.connected, pytest.mark.timeout(300)]

EXPECTED_SENTENCES = 2  # one of the consumer, one of the producer


def refused(
    system: RabbitSystem,
    kind: type[Exception],
    capfd: pytest.CaptureFixture[str],
    **options: Any,
) -> tuple[str, SaidLog]:
    """Everything we do is refused with `kind`, quietly; returns the sentence."""
    log = SaidLog()
    chosen = system.options(**options)
    producer = RabbitProducer(chosen, log=log)
    consumer = RabbitConsumer(chosen, "any-queue", log=log, producer=producer)
    try:
        with pytest.raises(kind) as pinged:
            consumer.ping(8.0)
        with pytest.raises(kind):
            producer.ping(8.0)
        with pytest.raises(kind) as published:
            producer.publish("any-queue", Message(b"1"), timeout_s=3.0)
        assert str(published.value) == str(pinged.value)
    finally:
        consumer.close(5)
        producer.close(5)
    assert capfd.readouterr().err == "", "pika wrote to standard error"
    said = log.events("broker_refused", "broker_unreachable")
    assert len(said) <= EXPECTED_SENTENCES, "said more than once each"
    return str(pinged.value), log


def test_a_wrong_password_is_one_sentence(
    rabbit_system: RabbitSystem, capfd: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    sentence, log = refused(rabbit_system, CredentialsRejected, capfd, password="canary-7f3a")
    assert time.monotonic() - started < 10
    options = rabbit_system.options()
    assert sentence == (
        f"{options.where} refused the login of {options.username!r}; check RABBITMQ_USERNAME and "
        "RABBITMQ_PASSWORD."
    )
    assert "canary-7f3a" not in str(log.said)


def test_receive_raises_while_the_login_is_refused(rabbit_system: RabbitSystem) -> None:
    log = SaidLog()
    consumer = RabbitConsumer(rabbit_system.options(password="wrong"), "any-queue", log=log)
    try:
        with pytest.raises(CredentialsRejected, match="RABBITMQ_PASSWORD"):
            consumer.receive(20)
        with pytest.raises(CredentialsRejected, match="RABBITMQ_PASSWORD"):
            consumer.receive(0)
    finally:
        consumer.close(5)


def test_a_virtual_host_that_is_not_there_is_one_sentence(
    rabbit_system: RabbitSystem, capfd: pytest.CaptureFixture[str]
) -> None:
    sentence, _ = refused(rabbit_system, ConfigError, capfd, vhost="no/such")
    assert sentence.endswith("has no virtual host 'no/such'; check RABBITMQ_VHOST.")


def test_nobody_at_the_address_is_one_sentence(
    rabbit_system: RabbitSystem, capfd: pytest.CaptureFixture[str]
) -> None:
    sentence, _ = refused(rabbit_system, BrokerUnavailable, capfd, host="127.0.0.1:1,localhost:1")
    assert "127.0.0.1:1,localhost:1 does not answer (connection refused" in sentence


def test_the_next_node_is_taken_when_the_first_is_away(rabbit_system: RabbitSystem) -> None:
    producer = rabbit_system.producer(host=f"127.0.0.1:1,{rabbit_system.address.host}")
    try:
        producer.ping(JOIN_S)
        assert rabbit_system.log.events("broker_unreachable") == []
    finally:
        producer.close(CLOSE_S)


# TLS.


def tls_host(system: RabbitSystem, scheme: str = "amqps") -> str:
    assert system.server is not None
    if (port := system.server.tls_port) is None:
        pytest.skip("openssl is not here to make a certificate")
    return f"{scheme}://localhost:{port}"


def test_a_message_goes_round_over_tls(own_rabbit_system: RabbitSystem) -> None:
    assert own_rabbit_system.server is not None
    ca_file = str(own_rabbit_system.server.folder / "ca.pem")
    more: dict[str, Any] = {"host": tls_host(own_rabbit_system), "ca_file": ca_file}
    queue = own_rabbit_system.new_queue()
    producer = own_rabbit_system.producer(**more)
    consumer = own_rabbit_system.consumer(queue, **more)
    try:
        producer.publish(queue, Message(b"1"), timeout_s=JOIN_S)
        assert settled(receive(consumer).ack())
    finally:
        consumer.close(CLOSE_S)
        producer.close(CLOSE_S)


def test_an_unknown_authority_is_one_sentence(
    own_rabbit_system: RabbitSystem, capfd: pytest.CaptureFixture[str]
) -> None:
    host = tls_host(own_rabbit_system)
    sentence, _ = refused(own_rabbit_system, BrokerUnavailable, capfd, host=host)
    assert "RABBITMQ_CA_FILE" in sentence


@pytest.mark.parametrize("way", ["TLS to a plain port", "plain to a TLS port"])
def test_the_wrong_scheme_is_one_sentence(
    own_rabbit_system: RabbitSystem, capfd: pytest.CaptureFixture[str], way: str
) -> None:
    host = f"amqps://{own_rabbit_system.address.host}"
    if way.startswith("plain"):
        host = tls_host(own_rabbit_system, "amqp")
    sentence, _ = refused(own_rabbit_system, BrokerUnavailable, capfd, host=host)
    assert "amqp" in sentence


# Permissions, queues, exchanges.


def manage(system: RabbitSystem, method: str, path: str, document: object) -> None:
    """Tell the management API."""
    address = system.address
    answer = httpx.request(
        method,
        f"{address.management_url}/api/{path}",
        json=document,
        auth=(address.username, address.password),
        timeout=20,
    )
    answer.raise_for_status()


def outsider(system: RabbitSystem, **permissions: str) -> RabbitSystem:
    """As a user with these permissions (configure, write, read), and no others."""
    name = system.new_name()
    manage(system, "PUT", f"users/{name}", {"password": "p", "tags": ""})
    rights = {"configure": "^$", "write": "^$", "read": "^$", **permissions}
    manage(system, "PUT", f"permissions/%2F/{name}", rights)
    return RabbitSystem(replace(system.address, username=name, password="p"), system.server)


def test_a_user_without_permissions_is_told_which_it_needs(
    own_rabbit_system: RabbitSystem,
) -> None:
    queue = own_rabbit_system.new_queue()
    stranger = outsider(own_rabbit_system)
    consumer, producer = stranger.consumer(queue), stranger.producer()
    try:
        producer.ping(10)  # the login itself is fine
        with pytest.raises(ConfigError, match="does not let our user use the queue"):
            consumer.receive(20)
        with pytest.raises(ConfigError, match="does not let our user use the queue"):
            producer.publish(queue, Message(b"1"), timeout_s=10)
        assert len(stranger.log.events("queue_refused")) == 1
    finally:
        consumer.close(5)
        producer.close(5)


def test_a_queue_that_cannot_be_made_is_a_configuration_error(
    own_rabbit_system: RabbitSystem,
) -> None:
    stranger = outsider(own_rabbit_system, write=".*", read=".*")
    consumer, producer = stranger.consumer("nobody-made-me"), stranger.producer()
    try:
        with pytest.raises(ConfigError, match="'nobody-made-me' does not exist"):
            consumer.receive(20)
        with pytest.raises(ConfigError, match="'nobody-made-me' does not exist"):
            producer.publish("nobody-made-me", Message(b"1"), timeout_s=10)
    finally:
        consumer.close(5)
        producer.close(5)


def test_a_user_who_may_not_write_still_reads_and_retries(own_rabbit_system: RabbitSystem) -> None:
    queue = own_rabbit_system.new_queue()
    producer = own_rabbit_system.producer()
    producer.publish(queue, Message(b"1"), timeout_s=JOIN_S)
    producer.close(CLOSE_S)
    reader = outsider(own_rabbit_system, read=".*")
    consumer = reader.consumer(queue)
    try:
        receive(consumer).retry(0.2)
        again = receive(consumer)
        assert again.attempt == 2
        again.retry(0.0)
        third = receive(consumer)
        assert third.attempt == 3
        assert settled(third.ack())
        assert len(reader.log.events("attempts_not_kept")) == 1
    finally:
        consumer.close(CLOSE_S)


def test_a_missing_destination_is_made_and_the_log_says_so(rabbit_system: RabbitSystem) -> None:
    queue = rabbit_system.new_name()
    producer = rabbit_system.producer()
    try:
        producer.publish(queue, Message(b"1"), timeout_s=JOIN_S)
        assert rabbit_system.waiting_in(queue) == 1
        (said,) = rabbit_system.log.events("queue_created")
        assert (said["queue"], said["queue_type"]) == (queue, "quorum")
        with pytest.raises(ConfigError, match="too long for"):
            producer.publish("q" * 300, Message(b"1"), timeout_s=JOIN_S)
    finally:
        producer.close(CLOSE_S)


def test_results_go_through_the_exchange_and_dead_letters_do_not(
    rabbit_system: RabbitSystem,
) -> None:
    target, dead, exchange = (rabbit_system.new_name() for _ in range(3))
    with rabbit_system.connect() as connection:
        connection.channel().exchange_declare(exchange, "topic", durable=True)
    producer = RabbitProducer(
        rabbit_system.options(exchange=exchange), log=rabbit_system.log, by_exchange=[target]
    )
    try:
        for queue in (target, dead):
            producer.publish(queue, Message(b"1"), timeout_s=JOIN_S)
            assert rabbit_system.waiting_in(queue) == 1
        with rabbit_system.connect() as connection:
            channel = connection.channel()
            channel.queue_unbind(target, exchange, routing_key=target)
            producer.publish(target, Message(b"2"), timeout_s=JOIN_S)  # bound again
        assert rabbit_system.waiting_in(target) == 2
    finally:
        producer.close(CLOSE_S)


def test_a_missing_exchange_is_named(rabbit_system: RabbitSystem) -> None:
    queue = rabbit_system.new_queue()
    producer = RabbitProducer(
        rabbit_system.options(exchange="no-such"), log=rabbit_system.log, by_exchange=[queue]
    )
    try:
        with pytest.raises(ConfigError, match="has no exchange 'no-such'"):
            producer.publish(queue, Message(b"1"), timeout_s=JOIN_S)
        producer.publish(f"{queue}.dlq", Message(b"1"), timeout_s=JOIN_S)
    finally:
        producer.close(CLOSE_S)


def test_a_queue_in_exclusive_use_is_named(rabbit_system: RabbitSystem) -> None:
    queue = rabbit_system.new_name()
    rabbit_system.declare(queue)
    with rabbit_system.connect() as connection:
        channel = connection.channel()
        channel.basic_consume(queue, lambda *_: None, exclusive=True)
        consumer = rabbit_system.consumer(queue)
        try:
            with pytest.raises(ConfigError, match="for itself alone"):
                consumer.receive(20)
        finally:
            consumer.close(CLOSE_S)


def test_a_queue_that_is_deleted_is_made_again(rabbit_system: RabbitSystem) -> None:
    queue = rabbit_system.new_queue()
    consumer, producer = rabbit_system.consumer(queue), rabbit_system.producer()
    try:
        assert consumer.receive(0.5) is None
        with rabbit_system.connect() as connection:
            connection.channel().queue_delete(queue)
        wait_for(lambda: bool(rabbit_system.log.events("queue_created")), "it was made")
        producer.publish(queue, Message(b"1"), timeout_s=JOIN_S)
        assert settled(receive(consumer).ack())
    finally:
        consumer.close(CLOSE_S)
        producer.close(CLOSE_S)


def test_headers_that_no_connection_can_carry_are_too_large(rabbit_system: RabbitSystem) -> None:
    queue = rabbit_system.new_queue()
    producer = rabbit_system.producer()
    try:
        for headers in ({"reason": "x" * 200_000}, {"n" * 300: "x"}):
            with pytest.raises(MessageTooLarge):
                producer.publish(queue, Message(b"1", None, headers), timeout_s=JOIN_S)
        producer.publish(queue, Message(b"1", None, {"reason": "x" * 100_000}), timeout_s=JOIN_S)
        assert rabbit_system.log.events("broker_unreachable") == []
    finally:
        producer.close(CLOSE_S)


def test_a_full_queue_is_unavailable_and_others_are_not(rabbit_system: RabbitSystem) -> None:
    full = rabbit_system.new_name()
    arguments = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    rabbit_system.declare(full, arguments)
    producer = rabbit_system.producer()
    try:

        def fill() -> None:
            for _ in range(10):  # the limit of a quorum queue is a soft one
                producer.publish(full, Message(b"1"), timeout_s=JOIN_S)

        with pytest.raises(BrokerUnavailable, match="full"):
            fill()
        producer.publish(rabbit_system.new_queue(), Message(b"1"), timeout_s=JOIN_S)
    finally:
        producer.close(CLOSE_S)


def test_a_broker_short_of_memory_is_unavailable_and_says_so(
    own_rabbit_system: RabbitSystem,
) -> None:
    server = own_rabbit_system.server
    assert server is not None
    queue = own_rabbit_system.new_queue()
    producer, consumer = own_rabbit_system.producer(), own_rabbit_system.consumer(queue)
    try:
        producer.publish(queue, Message(b"1"), timeout_s=JOIN_S)
        server.control("set_vm_memory_high_watermark", "absolute", "1MB")
        with pytest.raises(BrokerUnavailable):
            producer.publish(queue, Message(b"2"), timeout_s=2)
        with pytest.raises(BrokerUnavailable, match="short of memory"):
            producer.publish(queue, Message(b"3"), timeout_s=2)
        # Work goes on with what is there.
        assert settled(receive(consumer).ack())
        server.control("set_vm_memory_high_watermark", "0.4")
        wait_for(lambda: bool(own_rabbit_system.log.events("broker_unblocked")), "unblocked")
        producer.publish(queue, Message(b"4"), timeout_s=JOIN_S)
        assert len(own_rabbit_system.log.events("broker_blocked")) == 1
    finally:
        server.control("set_vm_memory_high_watermark", "0.4")
        consumer.close(CLOSE_S)
        producer.close(CLOSE_S)


# Limits, as the management API tells them.


def managed(system: RabbitSystem) -> Address:
    if not system.address.management_url:
        pytest.skip("RABBITMQ_TEST_MANAGEMENT_URL is not set")
    return system.address


def test_a_delivery_limit_without_dead_lettering_is_refused(rabbit_system: RabbitSystem) -> None:
    url = managed(rabbit_system).management_url
    options, log = rabbit_system.options(management_url=url), rabbit_system.log
    plain, limited, safe = (rabbit_system.new_name() for _ in range(3))
    quorum = {"x-queue-type": "quorum"}
    rabbit_system.declare(plain, quorum)
    rabbit_system.declare(limited, {**quorum, "x-delivery-limit": 3})
    rabbit_system.declare(safe, {**quorum, "x-delivery-limit": 3, "x-dead-letter-exchange": ""})
    with pytest.raises(ConfigError, match="after 3 deliveries and has no dead-letter exchange"):
        check_limits(options, limited, 300, log=log)
    assert check_limits(options, safe, 300, log=log).delivery_limit == 3
    check_limits(options, plain, 300, log=log)
    check_limits(options, "nobody-made-me-yet", 300, log=log)
    # A policy is as good as an argument, also as bad.
    policy = {"pattern": f"^{plain}$", "apply-to": "queues", "definition": {"delivery-limit": 5}}
    manage(rabbit_system, "PUT", f"policies/%2F/{plain}", policy)
    with pytest.raises(ConfigError, match="after 5 deliveries"):
        wait_for(lambda: check_limits(options, plain, 300, log=log) is None, "the policy", 10)
    assert log.said == []


def test_a_management_api_that_refuses_us_or_is_away(rabbit_system: RabbitSystem) -> None:
    url = managed(rabbit_system).management_url
    wrong = rabbit_system.options(management_url=url, password="canary-7f3a")
    with pytest.raises(CredentialsRejected, match="tag `monitoring`"):
        check_limits(wrong, "q", 300, log=rabbit_system.log)
    away = rabbit_system.options(management_url="http://127.0.0.1:1")
    assert check_limits(away, "q", 300, log=rabbit_system.log).ack_timeout_s == 1800
    (said,) = rabbit_system.log.events("limits_unchecked")
    assert "RABBITMQ_MANAGEMENT_URL" in str(said["reason"])
