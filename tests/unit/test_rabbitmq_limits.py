"""The broker's patience against ours, and what its management API may answer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest

from contract.said_log import SaidLog
from scripted_http import Route, ScriptedServer, page, reply, reset
from vault_ml.brokers.rabbitmq.limits import Limits, check_limits
from vault_ml.brokers.rabbitmq.options import RabbitOptions
from vault_ml.brokers.rabbitmq.prefetch import Prefetch
from vault_ml.errors import ConfigError, CredentialsRejected

QUEUE = "/api/queues/%2F/ml-queue"  # the virtual host is escaped


def options(**more: Any) -> RabbitOptions:
    return RabbitOptions("mq", "user", "canary", **more)


def checked(work_s: float, **more: Any) -> Limits:
    return check_limits(options(**more), "ml-queue", work_s, log=SaidLog())


def test_work_that_fits_is_taken_and_leaves_room_to_wait() -> None:
    limits = checked(600)
    assert limits.work_until_s == 1440
    assert limits.hold_until_s == 840
    assert limits.delivery_limit is None


def test_work_that_does_not_fit_is_refused_with_the_figures() -> None:
    with pytest.raises(ConfigError) as caught:
        checked(1500)
    sentence = str(caught.value)
    for part in ("within 1800 s", "1500 s", "at most 1438 s", "1878 s or more", "_TIMEOUT_S"):
        assert part in sentence
    # What the sentence asks for is enough.
    assert checked(1500, ack_timeout_s=1878).ack_timeout_s == 1878
    with pytest.raises(ConfigError):
        checked(1500, ack_timeout_s=1870)


def test_a_broker_without_ack_timeout_takes_any_work() -> None:
    assert checked(1e6, ack_timeout_s=0).hold_until_s == math.inf


def test_a_patience_learnt_later_leaves_some_time_to_wait() -> None:
    assert Limits(ack_timeout_s=60, work_s=600).hold_until_s == 15


def answer(document: object) -> Route:
    return reply(200, json.dumps(document).encode())


def asked(
    queue: Mapping[str, Any] | None, version: str = "3.10.8", **more: Any
) -> tuple[Limits, SaidLog]:
    """What is made of a management API that says this about the queue."""
    routes = {"GET /api/overview": answer({"rabbitmq_version": version})}
    if queue is not None:
        routes[f"GET {QUEUE}"] = answer(queue)
    log = SaidLog()
    with ScriptedServer(routes) as server:
        limits = check_limits(
            options(management_url=f"{server.url}/", **more), "ml-queue", 300, log=log
        )
    return limits, log


QUORUM = {"type": "quorum", "arguments": {"x-dead-letter-exchange": ""}}


@pytest.mark.parametrize(
    ("queue", "version", "limit"),
    [
        pytest.param(QUORUM, "3.10.8", math.inf, id="version 3 has none"),
        pytest.param(QUORUM, "4.1.0", 20, id="version 4 has 20"),
        pytest.param(None, "4.1.0", 20, id="a queue that is not there yet"),
        pytest.param({**QUORUM, "delivery_limit": 7}, "4.1.0", 7, id="as it says itself"),
        pytest.param({**QUORUM, "delivery_limit": -1}, "4.1.0", math.inf, id="switched off"),
        pytest.param({**QUORUM, "delivery_limit": "unlimited"}, "4.1.0", 20, id="a new word"),
        pytest.param({"type": "classic", "arguments": {}}, "4.1.0", math.inf, id="classic"),
        pytest.param(
            {**QUORUM, "effective_policy_definition": {"delivery-limit": 9}}, "4.1.0", 9,
            id="a policy",
        ),
        pytest.param(
            {"type": "quorum", "arguments": {"x-delivery-limit": 3, "x-dead-letter-exchange": ""},
             "effective_policy_definition": {"delivery-limit": 9}}, "4.1.0", 3,
            id="an argument goes before a policy",
        ),
    ],
)  # fmt: skip
def test_the_delivery_limit_is_the_queues_own(
    queue: Mapping[str, Any] | None, version: str, limit: float
) -> None:
    limits, log = asked(queue, version)
    assert limits.delivery_limit == limit
    assert log.said == []


@pytest.mark.parametrize(
    ("queue", "version"),
    [
        pytest.param({"type": "quorum", "arguments": {}}, "4.0.0", id="the default of version 4"),
        pytest.param({"type": "quorum", "delivery_limit": 5}, "3.13.0", id="its own limit"),
        pytest.param(
            {"type": "quorum", "effective_policy_definition": {"delivery-limit": 2}}, "3.13.0",
            id="of a policy",
        ),
    ],
)  # fmt: skip
def test_a_limit_without_dead_lettering_is_refused_with_the_command_that_mends_it(
    queue: Mapping[str, Any], version: str
) -> None:
    with pytest.raises(ConfigError, match=r"dropped.*rabbitmqctl set_policy") as caught:
        asked(queue, version)
    assert '"dead-letter-routing-key":"ml-queue.dlq"' in str(caught.value)


def test_a_patience_of_the_queue_goes_before_the_setting() -> None:
    queue = {**QUORUM, "effective_policy_definition": {"consumer-timeout": 7_200_000}}
    limits, _ = asked(queue)
    assert limits.ack_timeout_s == 7200
    with pytest.raises(ConfigError, match="within 60 s"):
        asked({**QUORUM, "arguments": {"x-consumer-timeout": 60_000}})


@pytest.mark.parametrize(
    ("route", "part"),
    [
        pytest.param(reset, "does not answer", id="a reset"),
        pytest.param(reply(503), "503", id="not now"),
        pytest.param(page(200), "no answer of RabbitMQ's", id="somebody's web page"),
        pytest.param(answer([1]), "no answer of RabbitMQ's", id="not an object"),
    ],
)
def test_an_api_that_does_not_tell_is_said_and_the_settings_are_taken(
    route: Route, part: str
) -> None:
    log = SaidLog()
    with ScriptedServer({"GET /api/overview": route}) as server:
        limits = check_limits(
            options(management_url=server.url, delivery_limit=4), "ml-queue", 300, log=log
        )
    assert (limits.ack_timeout_s, limits.delivery_limit) == (1800, 4)
    ((event, fields),) = log.said
    assert event == "limits_unchecked"
    assert part in str(fields["reason"])
    assert "canary" not in str(fields)


@pytest.mark.parametrize("status", [401, 403])
def test_an_api_that_refuses_us_stops_us(status: int) -> None:
    routes = {"GET /api/overview": reply(status)}
    with (
        ScriptedServer(routes) as server,
        pytest.raises(CredentialsRejected, match="tag `monitoring`") as caught,
    ):
        check_limits(options(management_url=server.url), "ml-queue", 300, log=SaidLog())
    assert "canary" not in str(caught.value)


# The prefetch, which makes room for what waits.


def test_room_grows_with_what_waits_and_goes_with_it() -> None:
    prefetch = Prefetch(2)
    assert prefetch.grow(0) is not None
    for waiting in range(1, 300):
        while prefetch.grow(waiting) is not None:
            pass
        assert prefetch.total - waiting >= 2, "there is always room to work"
        assert prefetch.total - waiting <= 4 + waiting // 3, "and not much more"
    assert prefetch.shrink(298) is None
    while prefetch.shrink(0) is not None:
        pass
    assert prefetch.total == 2
    prefetch.reset()
    assert prefetch.total == 0
    first, second = prefetch.grow(0), prefetch.grow(9)
    assert first is not None
    assert second is not None
    assert first[0] != second[0], "every consumer has its own tag"


def test_room_ends_somewhere() -> None:
    prefetch = Prefetch(3)
    for _ in range(10):
        prefetch.grow(10**6)
    assert prefetch.grow(10**6) is None
