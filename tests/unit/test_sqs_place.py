from __future__ import annotations

import pytest

pytest.importorskip("boto3")

from vault_ml.brokers.sqs.clients import Clients, place, within
from vault_ml.brokers.sqs.options import SqsOptions

AWS = "https://sqs.eu-west-1.amazonaws.com/123456789012/q"
OWN = "http://emulator:4566/000000000000/q"


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")


@pytest.mark.parametrize(
    ("queue", "options", "found"),
    [
        pytest.param("q", SqsOptions(), ("", ""), id="boto3 decides"),
        pytest.param("q", SqsOptions(region="eu-west-1"), ("eu-west-1", ""), id="region"),
        pytest.param("q", SqsOptions(endpoint_url="http://e"), ("", "http://e"), id="endpoint"),
        pytest.param(AWS, SqsOptions(region="us-east-1"), ("eu-west-1", ""), id="url of AWS"),
        pytest.param(
            AWS, SqsOptions(endpoint_url="http://e"), ("", "http://e"), id="endpoint before url"
        ),
        pytest.param(
            "https://sqs-fips.us-gov-west-1.amazonaws.com/1/q",
            SqsOptions(),
            ("us-gov-west-1", ""),
            id="fips",
        ),
        pytest.param(
            "https://eu-west-1.queue.amazonaws.com/1/q", SqsOptions(), ("eu-west-1", ""), id="old"
        ),
        pytest.param(
            "https://queue.amazonaws.com/1/q",
            SqsOptions(region="us-east-1"),
            ("us-east-1", ""),
            id="oldest",
        ),
        pytest.param(
            "https://sqs.cn-north-1.amazonaws.com.cn/1/q", SqsOptions(), ("cn-north-1", ""), id="cn"
        ),
        pytest.param(
            "https://vpce-1a.sqs.eu-west-1.vpce.amazonaws.com/1/q",
            SqsOptions(),
            ("eu-west-1", "https://vpce-1a.sqs.eu-west-1.vpce.amazonaws.com"),
            id="private network",
        ),
        pytest.param(OWN, SqsOptions(), ("", "http://emulator:4566"), id="url of an emulator"),
        pytest.param(
            "https://sqs.eu-west-1.amazonaws.com.evil.example/1/q",
            SqsOptions(),
            ("", "https://sqs.eu-west-1.amazonaws.com.evil.example"),
            id="only looks like AWS",
        ),
    ],
)
def test_a_queue_is_asked_for_where_it_is(
    queue: str, options: SqsOptions, found: tuple[str, str]
) -> None:
    assert place(queue, options) == found


def asked_at(options: SqsOptions, queue: str) -> tuple[str, str]:
    clients = Clients(options, read_timeout_s=1)
    meta = clients.of(queue).meta
    clients.close()
    return meta.region_name, meta.endpoint_url


def test_the_region_of_a_url_wins_over_the_configured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    assert asked_at(SqsOptions(), "q") == ("us-west-2", "https://sqs.us-west-2.amazonaws.com")
    assert asked_at(SqsOptions(), AWS) == ("eu-west-1", "https://sqs.eu-west-1.amazonaws.com")


def test_a_service_that_is_not_aws_needs_no_region() -> None:
    assert asked_at(SqsOptions(endpoint_url="http://e:1"), "q")[1] == "http://e:1"
    assert asked_at(SqsOptions(), OWN)[1] == "http://emulator:4566"


def test_the_variable_of_aws_wins_over_the_url_and_ours_over_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://variable:4566")
    assert asked_at(SqsOptions(region="us-east-1"), "q")[1] == "http://variable:4566"
    assert asked_at(SqsOptions(), OWN)[1] == "http://variable:4566"
    assert asked_at(SqsOptions(endpoint_url="http://ours:1"), OWN)[1] == "http://ours:1"


def test_one_client_serves_all_queues_of_a_place() -> None:
    clients = Clients(SqsOptions(endpoint_url="http://e:1"), read_timeout_s=1)
    assert clients.of("a") is clients.of("b")
    clients.close()


def test_the_service_is_named_by_what_the_operator_said() -> None:
    assert SqsOptions().where == "SQS"
    assert SqsOptions(region="eu-west-1").where == "SQS in eu-west-1"
    assert SqsOptions(region="x", endpoint_url="http://e").where == "SQS at http://e"


def test_a_call_that_is_late_is_given_up_and_one_that_fails_fails() -> None:
    assert within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)
