from __future__ import annotations

import time

import pytest

from vault_ml.telemetry.redaction import MASK, is_secret_name, redact, redact_text


@pytest.mark.parametrize(
    "name",
    [
        "password", "KAFKA_PASSWORD", "sasl.password", "ssl.key.password", "vault_secret_key",
        "storage_access_key", "storage_secret", "accessKey", "secretAccessKey", "Authorization",
        "Proxy-Authorization", "Set-Cookie", "signedUrl", "signed_url", "api-key", "token",
        "X-Kerberos-Storage-AccessKey", "X-Kerberos-Storage-SecretAccessKey",
        "X-Kerberos-Storage-CloudKey", "x-kerberos-hub-privatekey", "X-Kerberos-Anything",
        "aws_session_token", "ssl.key.pem", "sasl.jaas.config",
    ],
)  # fmt: skip
def test_a_secret_is_known_by_its_name(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "", "key", "recording_key", "provider", "event-token", "publickey", "productid", "tokens",
        "X-Kerberos-Storage-FileName", "X-Kerberos-Storage-Provider", "keyframe", "reason",
    ],
)  # fmt: skip
def test_what_an_operator_needs_is_no_secret(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain text, no secret", "plain text, no secret"),
        ("GET https://h/a.mp4?X-Amz-Sig=canary HTTP/1.1", "GET https://h/a.mp4?*** HTTP/1.1"),
        ("'https://h/a?x=canary' twice http://h?canary", "'https://h/a?***' twice http://h?***"),
        ("amqp://user:canary@host/v", "amqp://***@host/v"),
        ("https://canary@h/p?x=canary", "https://***@h/p?***"),
        ("http://h/p without query", "http://h/p without query"),
        ("a://u:canary@h,b://u:canary@i", "a://***@h,b://***@i"),
        ("http://h/p?", "http://h/p?"),
        ("password=canary, next", "password=***, next"),
        ('{"storage_secret": "canary", "a": 1}', '{"storage_secret": ***, "a": 1}'),
        ("{'secret_key': 'can\\'ary'}", "{'secret_key': ***}"),
        ("Authorization: Bearer canary", "Authorization: ***"),
        ("sasl.password = canary", "sasl.password = ***"),
        ("invalid access key canary", "invalid access key canary"),
    ],
)  # fmt: skip
def test_texts_lose_queries_logins_and_named_secrets(text: str, expected: str) -> None:
    assert redact_text(text) == expected


def test_nested_values_are_masked_by_name_and_the_rest_stays() -> None:
    value = {
        "payload": {"key": "k", "signedUrl": "https://x", "size": 5},
        "list": [{"password": "canary"}, ("http://h?canary", None)],
        "password": None,
        "secret": "",
        5: "https://u:canary@h",
        "body": b"canary",
    }
    assert redact(value) == {
        "payload": {"key": "k", "signedUrl": MASK, "size": 5},
        "list": [{"password": MASK}, ("http://h?***", None)],
        "password": None,
        "secret": "",
        5: "https://***@h",
        "body": "<6 bytes>",
    }


def test_what_nests_without_end_is_masked() -> None:
    endless: dict[str, object] = {}
    endless["a"] = endless
    assert MASK in repr(redact(endless))


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "://" * 300_000,
        "a://b@" * 200_000,
        "a://b?" * 200_000,
        "password" * 150_000,
        'password="' * 100_000,
        "password='\\" * 100_000,
        "password" + " " * 1_000_000,
    ],
    ids=lambda text: text[:12],
)
def test_a_long_text_takes_no_longer_than_its_length(text: str) -> None:
    started = time.thread_time()  # a busy machine makes it wait
    redact_text(text)
    assert time.thread_time() - started < 5  # quadratic would be minutes
