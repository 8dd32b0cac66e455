"""RABBITMQ_HOST in all its spellings."""

from __future__ import annotations

import pytest

from vault_ml.brokers.amqp_addresses import Address, parse_addresses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("mq", Address("mq", 5672, False, None), id="a name"),
        pytest.param("rabbitmq.rabbitmq:5673", Address("rabbitmq.rabbitmq", 5673, False, None)),
        pytest.param("AMQP://mq", Address("mq", 5672, False, None), id="a scheme"),
        pytest.param("amqps://mq", Address("mq", 5671, True, None), id="TLS has its own port"),
        pytest.param("amqps://mq:5672/", Address("mq", 5672, True, None), id="an empty path"),
        pytest.param("amqp://mq/a%2Fb%20c", Address("mq", 5672, False, "a/b c"), id="escaped"),
        pytest.param("amqp://mq/%2F", Address("mq", 5672, False, "/"), id="the default, escaped"),
        pytest.param("[::1]:5672", Address("::1", 5672, False, None), id="IPv6"),
        pytest.param("10.0.0.1", Address("10.0.0.1", 5672, False, None), id="IPv4"),
    ],
)
def test_an_address_is_read(text: str, expected: Address) -> None:
    assert parse_addresses(text) == (expected,)


def test_several_nodes_keep_their_order() -> None:
    nodes = parse_addresses(" b:1 ,amqps://a,, [::1] ")
    assert [str(node) for node in nodes] == ["b:1", "a:5671", "[::1]:5672"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        pytest.param("", "is empty", id="empty"),
        pytest.param(" , ", "is empty", id="only commas"),
        pytest.param("amqp://user:canary@mq", "RABBITMQ_USERNAME", id="a login"),
        pytest.param("http://mq", "must be host", id="another scheme"),
        pytest.param("mq:0", "must be host", id="port 0"),
        pytest.param("mq:65536", "must be host", id="port too high"),
        pytest.param("amqp://mq/a/b", "must be host", id="two slashes"),
        pytest.param("amqp://mq/?heartbeat=canary", "must be host", id="a query"),
        pytest.param("two words", "must be host", id="a blank"),
        pytest.param("amqp://a/x,amqp://b/y", "RABBITMQ_VHOST", id="two virtual hosts"),
    ],
)
def test_what_is_no_address_is_told_without_showing_it(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=part) as caught:
        parse_addresses(text)
    assert "canary" not in str(caught.value)
