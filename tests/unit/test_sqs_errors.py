"""Every answer that SQS may give becomes a sentence of ours, without a word of its own text."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

pytest.importorskip("boto3")

from contract.said_log import SaidLog
from scripted_http import Route, cut_off, hang, page, reset
from scripted_sqs import ScriptedSqs, as_route, in_turn, ok, refusing
from vault_ml.brokers.port import Message
from vault_ml.brokers.sqs import SqsOptions, SqsProducer
from vault_ml.errors import (
    BrokerUnavailable,
    ConfigError,
    CredentialsRejected,
    MessageTooLarge,
    VaultMLError,
)

CANARY = "AKIACANARY"


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", CANARY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-canary")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")


@pytest.fixture
def sqs() -> Iterator[ScriptedSqs]:
    with ScriptedSqs() as server:
        yield server


def producer(url: str, queue: str = "q", log: SaidLog | None = None) -> SqsProducer:
    return SqsProducer(SqsOptions(endpoint_url=url), queue, log=log or SaidLog())


def trouble(url: str, *, timeout_s: float = 2.0, body: bytes = b"x" * 2000) -> VaultMLError:
    half = producer(url)
    try:
        with pytest.raises(VaultMLError) as caught:
            half.publish("q", Message(body), timeout_s=timeout_s)
    finally:
        half.close(1)
    assert "canary" not in str(caught.value).lower()
    return caught.value


@pytest.mark.parametrize(
    ("code", "status", "kind", "part"),
    [
        ("InvalidClientTokenId", 403, CredentialsRejected, "AWS_ACCESS_KEY_ID"),
        ("UnrecognizedClientException", 400, CredentialsRejected, "does not know our credentials"),
        ("SignatureDoesNotMatch", 403, CredentialsRejected, "AWS_SECRET_ACCESS_KEY"),
        ("InvalidSecurity", 403, CredentialsRejected, "role"),
        ("ExpiredToken", 403, CredentialsRejected, "expired"),
        ("AccessDenied", 403, CredentialsRejected, "sqs:SendMessage on 'q'"),
        ("AccessDeniedException", 400, CredentialsRejected, "IAM policy"),
        ("KmsAccessDenied", 400, ConfigError, "kms:Decrypt"),
        ("KmsDisabled", 400, ConfigError, "encrypted"),
        ("KmsThrottled", 400, BrokerUnavailable, "slower"),
        ("RequestThrottled", 400, BrokerUnavailable, "slower"),
        ("ThrottlingException", 400, BrokerUnavailable, "slower"),
        ("OverLimit", 403, BrokerUnavailable, "slower"),
        ("TooMany", 429, BrokerUnavailable, "slower"),
        ("InternalError", 500, BrokerUnavailable, "trouble of its own"),
        ("ServiceUnavailable", 503, BrokerUnavailable, "trouble of its own"),
        ("InternalFailure", 400, BrokerUnavailable, "trouble of its own"),
        ("QueueDoesNotExist", 400, BrokerUnavailable, "not there just now"),
        ("InvalidAddress", 404, ConfigError, "in this region"),
        ("UnsupportedOperation", 400, ConfigError, "refuses SendMessage on 'q'"),
        ("InvalidParameterValue", 400, MessageTooLarge, "2000 bytes"),
    ],
)
def test_an_error_of_the_service_has_its_class_and_its_sentence(
    sqs: ScriptedSqs, code: str, status: int, kind: type[VaultMLError], part: str
) -> None:
    sqs.answers["SendMessage"] = refusing(code, status)
    # Only an outage is asked again until the time is over; a machine at work may be slow to ask.
    error = trouble(sqs.url, timeout_s=2 if kind is BrokerUnavailable else 20)
    assert type(error) is kind
    assert part in str(error)


def test_an_invalid_parameter_is_not_called_too_large_when_the_message_is_small(
    sqs: ScriptedSqs,
) -> None:
    sqs.answers["SendMessage"] = refusing("InvalidParameterValue")
    assert type(trouble(sqs.url, timeout_s=20, body=b"{}")) is ConfigError


@pytest.mark.parametrize(
    ("route", "part"),
    [
        pytest.param(page(200), "not as SQS does", id="a web page"),
        pytest.param(hang, "in time", id="silence"),
        pytest.param(reset, "does not answer", id="reset"),
        pytest.param(cut_off(b'{"MessageId"', announced=100), "", id="cut off"),
    ],
)
def test_what_is_no_answer_is_an_outage(sqs: ScriptedSqs, route: Route, part: str) -> None:
    sqs.answers["SendMessage"] = as_route(route)
    error = trouble(sqs.url)
    assert type(error) is BrokerUnavailable
    assert part in str(error)
    assert sqs.url in str(error)


@pytest.mark.parametrize(
    "operation", ["GetQueueUrl", "CreateQueue", "SendMessage"], ids=lambda name: name
)
def test_the_page_of_a_web_server_confirms_nothing(sqs: ScriptedSqs, operation: str) -> None:
    if operation == "CreateQueue":
        sqs.answers["GetQueueUrl"] = refusing("QueueDoesNotExist")
    sqs.answers[operation] = as_route(page(200))
    error = trouble(sqs.url)
    assert type(error) is BrokerUnavailable
    assert "not as SQS does" in str(error)


def test_what_was_said_is_told_though_the_last_try_ran_out_of_time(sqs: ScriptedSqs) -> None:
    routes = iter([page(200)])
    sqs.answers["SendMessage"] = as_route(lambda ask, line: next(routes, hang)(ask, line))
    assert "not as SQS does" in str(trouble(sqs.url, timeout_s=3))


@pytest.mark.parametrize("queue", ["q", "http://elsewhere.invalid/000000000000/q"])
def test_the_page_of_a_web_server_answers_no_ping(queue: str) -> None:
    with ScriptedSqs() as server:
        server.routes["POST /"] = page(200)
        half = producer(server.url, queue)
        with pytest.raises(BrokerUnavailable, match="not as SQS does"):
            half.ping(5)
        half.close(1)


def test_a_web_server_that_has_no_such_page_is_not_sqs_either() -> None:
    with ScriptedSqs() as server:
        server.routes["POST /"] = page(404)
        error = trouble(server.url)
        assert isinstance(error, ConfigError | BrokerUnavailable)
        assert "SQS" in str(error)


def test_nobody_at_the_address_is_an_outage_with_the_address_in_it(sqs: ScriptedSqs) -> None:
    sqs.stop_listening()
    error = trouble(sqs.url)
    assert type(error) is BrokerUnavailable
    assert "cannot be reached" in str(error)
    assert sqs.url in str(error)


def test_http_and_https_that_were_mixed_up_are_named() -> None:
    def answer_in_plain_text() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_in_plain_text)
        thread.start()
        error = trouble(f"https://127.0.0.1:{listener.getsockname()[1]}", timeout_s=1.5)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert type(error) is BrokerUnavailable
    assert "TLS" in str(error)


def test_no_credentials_are_told_by_the_variables_to_set(
    sqs: ScriptedSqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    error = trouble(sqs.url)
    assert type(error) is CredentialsRejected
    assert "AWS_ACCESS_KEY_ID" in str(error)


def test_half_credentials_are_told_so(sqs: ScriptedSqs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(CredentialsRejected, match="incomplete"):
        producer(sqs.url)


@pytest.mark.parametrize(
    ("options", "variables", "part"),
    [
        pytest.param(SqsOptions(), {}, "AWS_REGION is not set", id="no region"),
        pytest.param(SqsOptions(), {"AWS_PROFILE": "nobody"}, "AWS_PROFILE", id="no profile"),
        pytest.param(SqsOptions(endpoint_url="http://"), {}, "SQS_ENDPOINT_URL", id="no address"),
    ],
)
def test_what_cannot_work_is_told_before_anything_connects(
    options: SqsOptions,
    variables: dict[str, str],
    part: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(ConfigError, match=part):
        SqsProducer(options, "q", log=SaidLog())


def test_a_queue_that_is_not_there_is_made_and_told(sqs: ScriptedSqs) -> None:
    log = SaidLog()
    sqs.answers["GetQueueUrl"] = refusing("QueueDoesNotExist")
    sqs.answers["CreateQueue"] = ok(QueueUrl="http://elsewhere.invalid/0/new.fifo")
    half = producer(sqs.url, log=log)
    half.publish("new.fifo", Message(b"{}"), timeout_s=5)
    half.publish("new.fifo", Message(b"{}"), timeout_s=5)
    half.close(1)
    (asked,) = [asked for name, asked in sqs.asked if name == "CreateQueue"]
    assert asked["Attributes"] == {"FifoQueue": "true", "MessageRetentionPeriod": "1209600"}
    assert [fields["queue"] for fields in log.events("queue_created")] == ["new.fifo"]


@pytest.mark.parametrize(
    ("code", "kind", "part"),
    [
        ("AccessDenied", CredentialsRejected, "does not exist, and we may not make it"),
        ("InvalidParameterValue", ConfigError, "does not exist and cannot be made"),
        ("QueueDeletedRecently", BrokerUnavailable, "for a minute"),
        ("QueueNameExists", BrokerUnavailable, "making the queue"),
        ("InternalError", BrokerUnavailable, "trouble"),
    ],
)
def test_a_queue_that_cannot_be_made_is_told_why(
    sqs: ScriptedSqs, code: str, kind: type[VaultMLError], part: str
) -> None:
    sqs.answers["GetQueueUrl"] = refusing("QueueDoesNotExist")
    sqs.answers["CreateQueue"] = refusing(code)
    error = trouble(sqs.url)
    assert type(error) is kind
    assert part in str(error)


def test_a_queue_that_was_removed_is_looked_for_again(sqs: ScriptedSqs) -> None:
    sqs.answers["SendMessage"] = in_turn(refusing("QueueDoesNotExist"), ok(MessageId="m"))
    half = producer(sqs.url)
    half.publish("q", Message(b"{}"), timeout_s=5)
    half.close(1)
    assert sqs.count("GetQueueUrl") == 2


def test_a_publish_tries_again_until_its_time_is_over(sqs: ScriptedSqs) -> None:
    log = SaidLog()
    sqs.answers["SendMessage"] = in_turn(
        refusing("RequestThrottled"), refusing("InternalError", 500), ok(MessageId="m")
    )
    half = producer(sqs.url, log=log)
    half.publish("q", Message(b"{}"), timeout_s=20)
    half.close(1)
    assert sqs.count("SendMessage") == 3
    assert len(log.events("broker_unreachable")) == 1
    assert len(log.events("broker_reachable")) == 1
    with pytest.raises(BrokerUnavailable, match="closed"):
        half.publish("q", Message(b"{}"), timeout_s=1)


@pytest.mark.parametrize("queue", ["q", "http://elsewhere.invalid/000000000000/q"])
def test_a_ping_asks_about_the_queue_as_it_is_given(sqs: ScriptedSqs, queue: str) -> None:
    sqs.answers["GetQueueAttributes"] = ok(Attributes={"QueueArn": "arn:aws:sqs:x:0:q"})
    half = producer(sqs.url, queue)
    half.ping(5)
    sqs.answers["GetQueueUrl"] = sqs.answers["GetQueueAttributes"] = refusing("AccessDenied", 403)
    with pytest.raises(CredentialsRejected, match="sqs:GetQueue"):
        half.ping(5)
    sqs.answers["GetQueueUrl"] = sqs.answers["GetQueueAttributes"] = as_route(hang)
    with pytest.raises(BrokerUnavailable, match="in time"):
        half.ping(0.2)
    half.close(1)


def test_a_ping_is_answered_also_before_the_queue_is_made(sqs: ScriptedSqs) -> None:
    sqs.answers["GetQueueUrl"] = refusing("QueueDoesNotExist")
    half = producer(sqs.url)
    half.ping(5)
    half.close(1)
