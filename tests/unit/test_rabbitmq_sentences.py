"""What pika meets, in our words, once; and what options refuse before anything connects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pika import exceptions

from contract.said_log import SaidLog
from vault_ml.brokers.rabbitmq.options import RabbitOptions
from vault_ml.brokers.rabbitmq.status import Status, ack_timeout_in, size_limit_in, translated
from vault_ml.errors import BrokerUnavailable, ConfigError, CredentialsRejected

OPTIONS = RabbitOptions("mq-0,mq-1", "user", "canary", vhost="cctv")
WHERE = "RabbitMQ at mq-0:5672,mq-1:5672"
LOGIN_REFUSED = exceptions.ProbableAuthenticationError("(403) ACCESS_REFUSED")


def make() -> tuple[Status, SaidLog]:
    log = SaidLog()
    return Status(OPTIONS, log, "consumer"), log


def not_allowed(text: str) -> exceptions.AMQPConnectionError:
    return exceptions.ProbableAccessDeniedError(f"ConnectionClosedByBroker: (530) {text!r}")


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        pytest.param(
            LOGIN_REFUSED, CredentialsRejected,
            f"{WHERE} refused the login of 'user'; check RABBITMQ_USERNAME and RABBITMQ_PASSWORD.",
            id="password",
        ),
        pytest.param(
            not_allowed("NOT_ALLOWED - vhost cctv not found"), ConfigError,
            f"{WHERE} has no virtual host 'cctv'; check RABBITMQ_VHOST.", id="virtual host",
        ),
        pytest.param(
            not_allowed("NOT_ALLOWED - access to vhost 'cctv' refused for user 'user'"),
            CredentialsRejected, f"{WHERE} does not let 'user' into the virtual host 'cctv'; "
            "give the user permissions there, or check RABBITMQ_VHOST.", id="not into it",
        ),
        pytest.param(
            not_allowed("NOT_ALLOWED - access to vhost 'cctv' refused: connection limit (9)"),
            BrokerUnavailable, f"{WHERE} does not answer (it has as many connections as it "
            "allows).", id="too many",
        ),
        pytest.param(
            exceptions.AMQPHeartbeatTimeout("No activity"), BrokerUnavailable,
            f"{WHERE} does not answer (no heartbeat came).", id="heartbeat",
        ),
        pytest.param(
            OSError("something new"), BrokerUnavailable, f"{WHERE} does not answer.", id="unknown",
        ),
    ],
)  # fmt: skip
def test_every_trouble_is_a_sentence(
    error: BaseException, kind: type[Exception], sentence: str
) -> None:
    told = translated(error, OPTIONS)
    assert (type(told), str(told)) == (kind, sentence)
    assert translated(told, OPTIONS) is told


def test_the_user_guest_is_told_why() -> None:
    told = translated(LOGIN_REFUSED, RabbitOptions("mq"))
    assert "guest may log in only from RabbitMQ's own machine" in str(told)


def test_a_refused_login_is_said_once_however_often_it_is_refused() -> None:
    status, log = make()
    for _ in range(100):
        status.failed(LOGIN_REFUSED)
    assert [event for event, _ in log.said] == ["broker_refused"]
    refusal = status.refusal()
    assert isinstance(refusal, CredentialsRejected)
    assert status.refusal() is not refusal, "one for every thread"
    assert not status.is_up


def test_an_outage_is_said_once_and_so_is_its_end() -> None:
    status, log = make()
    assert str(status.unavailable()) == f"{WHERE} does not answer."
    status.came_up()
    assert log.said == [], "nobody doubted it"
    for _ in range(100):
        status.failed(exceptions.StreamLostError("Transport indicated EOF"))
    assert str(status.unavailable()) == f"{WHERE} does not answer (the connection broke)."
    status.came_up()
    assert status.is_up
    assert [event for event, _ in log.said] == ["broker_unreachable", "broker_reachable"]
    status.failed(exceptions.StreamLostError("Transport indicated EOF"))
    assert len(log.said) == 2, "the same again within a minute is no news"


def test_an_outage_after_a_refusal_refuses_no_longer() -> None:
    status, _ = make()
    status.failed(LOGIN_REFUSED)
    status.failed(ConnectionRefusedError(111, "Connection refused"))
    assert status.refusal() is None
    assert "is it running" in str(status.unavailable())


def test_a_blocked_connection_is_said_and_its_end_too() -> None:
    status, log = make()
    status.came_up()
    status.blocked(True)
    assert "short of memory or disk" in str(status.unavailable())
    status.blocked(False)
    assert [event for event, _ in log.said] == ["broker_blocked", "broker_unblocked"]


def test_numbers_are_found_in_what_the_broker_says() -> None:
    timeout = Exception(
        "PRECONDITION_FAILED - delivery acknowledgement on channel 2 timed out. Timeout value "
        "used: 4000 ms. This timeout value can be configured"
    )
    size = Exception("message size 2000000 is larger than configured max size 1048576")
    assert (ack_timeout_in(timeout), size_limit_in(timeout)) == (4.0, None)
    assert (ack_timeout_in(size), size_limit_in(size)) == (None, 1048576)


# Options.


def test_the_password_never_shows() -> None:
    options = RabbitOptions("amqps://mq/cctv", "user", "canary")
    assert "canary" not in repr(options)
    assert "canary" not in repr(options.parameters(options.addresses[0]))
    assert options.where == "RabbitMQ at mq:5671"


@pytest.mark.parametrize(
    ("host", "vhost", "expected"),
    [("mq", "", "/"), ("amqp://mq/a", "", "a"), ("mq", "b", "b"), ("amqp://mq/c", "c", "c")],
)
def test_the_virtual_host_comes_from_either_place(host: str, vhost: str, expected: str) -> None:
    options = RabbitOptions(host, vhost=vhost)
    assert options.parameters(options.addresses[0]).virtual_host == expected


@pytest.mark.parametrize(
    ("more", "part"),
    [
        pytest.param({"host": ""}, "RABBITMQ_HOST is empty", id="no host"),
        pytest.param({"host": "amqp://u:canary@mq"}, "RABBITMQ_USERNAME", id="a login in it"),
        pytest.param({"host": "amqp://mq/a", "vhost": "b"}, "name the virtual host once", id="two"),
        pytest.param({"host": "mq", "ca_file": "/no/such"}, "no file /no/such", id="no CA file"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_connects(
    more: dict[str, Any], part: str
) -> None:
    with pytest.raises(ConfigError, match=part) as caught:
        RabbitOptions(**more)
    assert "canary" not in str(caught.value)


def test_a_ca_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("not a certificate")
    options = RabbitOptions("amqps://mq", ca_file=str(path))
    with pytest.raises(ConfigError, match="not a file of certificates"):
        options.parameters(options.addresses[0])


def test_without_pika_the_sentence_says_what_to_install(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys; sys.modules['pika'] = None; import vault_ml.brokers.rabbitmq"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "QUEUE_SYSTEM=RABBITMQ needs the package pika: pip install 'vault-ml[rabbitmq]'"
    )
