"""Routes, headers, addresses and replies of the Vault, without a Vault."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from vault_ml.errors import ConfigError, MalformedEvent
from vault_ml.vault import protocol
from vault_ml.vault.protocol import Standing

NOW = datetime(2021, 9, 2, 8, 0, 0, tzinfo=UTC)
HTML = "text/html; charset=utf-8"
JSON = "application/json"


@pytest.mark.parametrize(
    ("base_url", "roots"),
    [
        pytest.param(
            "https://vault.example.org",
            ("https://vault.example.org/api", "https://vault.example.org"),
            id="host only: today's Vaults first",
        ),
        pytest.param(
            "  https://vault.example.org//  ",
            ("https://vault.example.org/api", "https://vault.example.org"),
            id="spaces and slashes at the end",
        ),
        pytest.param(
            "https://vault.example.org/api/",
            ("https://vault.example.org/api",),
            id="with /api there is nothing to find out",
        ),
        pytest.param(
            "https://vault.example.org/api/storage",
            ("https://vault.example.org/api",),
            id="a whole route was given",
        ),
        pytest.param(
            "https://vault.example.org/storage/",
            ("https://vault.example.org", "https://vault.example.org/api"),
            id="a route of the old kind was given",
        ),
        pytest.param(
            "https://staging.api.vault.xxx.live",
            ("https://staging.api.vault.xxx.live", "https://staging.api.vault.xxx.live/api"),
            id="the original's example: the API has a host of its own",
        ),
        pytest.param(
            "https://api.vault.live",
            ("https://api.vault.live", "https://api.vault.live/api"),
            id="api as the first label",
        ),
        pytest.param(
            "https://myapi.vault.live",
            ("https://myapi.vault.live/api", "https://myapi.vault.live"),
            id="api as a part of a label means nothing",
        ),
        pytest.param(
            "http://vault:8081",
            ("http://vault:8081", "http://vault:8081/api"),
            id="the API has a port of its own",
        ),
        pytest.param(
            "http://[::1]:8080/vault",
            ("http://[::1]:8080/vault/api", "http://[::1]:8080/vault"),
            id="below a path, IPv6",
        ),
    ],
)
def test_finds_the_candidates_for_the_root(base_url: str, roots: tuple[str, ...]) -> None:
    assert protocol.api_roots(base_url) == roots


@pytest.mark.parametrize(
    ("base_url", "prefix", "root"),
    [
        ("https://v.example.org", "/api", "https://v.example.org/api"),
        ("https://v.example.org/api", "/api", "https://v.example.org/api"),
        ("https://v.example.org", "", "https://v.example.org"),
        ("https://v.example.org", "none", "https://v.example.org"),
        ("https://v.example.org/", "v2/api/", "https://v.example.org/v2/api"),
    ],
)
def test_a_given_prefix_leaves_nothing_to_find_out(base_url: str, prefix: str, root: str) -> None:
    assert protocol.api_roots(base_url, prefix) == (root,)


@pytest.mark.parametrize(
    ("base_url", "says"),
    [
        pytest.param("", "http://", id="empty"),
        pytest.param("vault.example.org", "http://", id="no scheme"),
        pytest.param("ftp://vault.example.org", "http://", id="other scheme"),
        pytest.param("https:///api", "name a host", id="no host"),
        pytest.param("https://vault:99999", "port", id="port out of range"),
        pytest.param("https://vault:hunter2", "port", id="port is no number"),
        pytest.param("https://[::1", "cannot be read", id="broken IPv6"),
        pytest.param("https://user:hunter2@vault", "user name", id="user name"),
        pytest.param("https://vault/api?key=hunter2", "nothing after it", id="query"),
        pytest.param("https://vault/api#hunter2", "nothing after it", id="fragment"),
        pytest.param("https://vault:", "nothing after it", id="colon without a port"),
    ],
)
def test_a_wrong_address_is_explained_and_never_repeated(base_url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        protocol.api_roots(base_url)
    assert "VAULT_API_URL" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("", "an address without a host"),
        ("https://user:secret@bucket.example.org/x?sig=1", "bucket.example.org"),
        ("http://127.0.0.1:9000/x", "127.0.0.1:9000"),
        ("https://[::1", "an address that cannot be read"),
    ],
)
def test_only_the_host_of_an_address_is_ever_shown(url: str, host: str) -> None:
    assert protocol.host_of(url) == host


def test_header_values_come_back_as_they_went() -> None:
    for text in (
        "youruser/1630567591_6-967003_highway4_200-200-400-400_24_769.mp4",
        "u/Tür 日本_.mp4",
    ):
        assert protocol.header_text(protocol.key_value(text, "key")) == text
    assert protocol.header_text(b"\xff") == "\ufffd"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "is empty", id="empty"),
        pytest.param("a\r\nX-Kerberos-Storage-AccessKey: b", "control character", id="line break"),
        pytest.param("a\x7f", "control character", id="delete"),
        pytest.param(" a", "space", id="leading space"),
        pytest.param("a ", "space", id="trailing space"),
        pytest.param("\ud800", "Unicode", id="half a surrogate pair"),
    ],
)
def test_what_cannot_stand_in_a_header_is_refused_before_it_is_sent(text: str, says: str) -> None:
    with pytest.raises(MalformedEvent, match=f"recording's key .*{says}"):
        protocol.key_value(text, "recording's key")
    with pytest.raises(ConfigError, match=f"VAULT_ACCESS_KEY .*{says}"):
        protocol.credential_value(text, "VAULT_ACCESS_KEY")


def test_good_credentials_pass_with_every_character_the_original_shows() -> None:
    assert protocol.credential_value("xxx!@#$%12345", "VAULT_ACCESS_KEY") == b"xxx!@#$%12345"


@pytest.mark.parametrize(
    ("content_type", "start", "expected"),
    [
        ("", b"", False),
        (HTML, b"", True),
        ("Application/XHTML+XML", b"", True),
        (JSON, b'{"data": "<html>"}', False),
        ("", b" \n<!DOCTYPE html><html>", True),
        ("text/plain", b"<HTML><body>", True),
        ("text/plain", b"404 page not found", False),
    ],
)
def test_recognises_a_web_page(content_type: str, start: bytes, expected: bool) -> None:
    assert protocol.is_web_page(content_type, start) is expected


@pytest.mark.parametrize(
    ("status", "content_type", "start", "expected"),
    [
        pytest.param(200, JSON, b"{}", False, id="an answer of the API"),
        pytest.param(200, HTML, b"<html>", True, id="the user interface"),
        pytest.param(404, JSON, b'{"data":"File not found"}', False, id="the API's own 404"),
        pytest.param(404, "text/plain", b"404 page not found", True, id="a router's 404"),
        pytest.param(405, "text/plain", b"", True, id="a router's 405"),
        pytest.param(404, HTML, b"<html>", True, id="a proxy's 404"),
        pytest.param(403, HTML, b"<html>", True, id="a login page"),
        pytest.param(413, HTML, b"<html>", False, id="a proxy says too large"),
        pytest.param(429, HTML, b"<html>", False, id="a proxy says too many"),
        pytest.param(502, HTML, b"<html>", False, id="a proxy says away"),
        pytest.param(401, JSON, b"{}", False, id="refused"),
    ],
)
def test_recognises_an_answer_that_is_not_the_apis(
    status: int, content_type: str, start: bytes, expected: bool
) -> None:
    assert protocol.is_wrong_root(status, content_type, start) is expected


@pytest.mark.parametrize(
    ("status", "content_type", "start", "expected"),
    [
        pytest.param(200, JSON, b'{"data":"pong"}', Standing.ACCEPTED, id="accepted"),
        pytest.param(200, "", b"", Standing.ACCEPTED, id="accepted without a body"),
        pytest.param(401, JSON, b"{}", Standing.REFUSED, id="401"),
        pytest.param(403, JSON, b"{}", Standing.REFUSED, id="403"),
        pytest.param(400, JSON, b"{}", Standing.UNKNOWN, id="wants a provider"),
        pytest.param(200, HTML, b"<html>", Standing.NOT_THE_API, id="page"),
        pytest.param(404, "text/plain", b"", Standing.NOT_THE_API, id="404"),
        pytest.param(404, JSON, b"{}", Standing.NOT_THE_API, id="404 in JSON"),
        pytest.param(405, "", b"", Standing.NOT_THE_API, id="405"),
        pytest.param(308, "", b"", Standing.NOT_THE_API, id="redirect"),
        pytest.param(503, HTML, b"<html>", Standing.AWAY, id="503"),
        pytest.param(429, JSON, b"{}", Standing.AWAY, id="429"),
    ],
)
def test_reads_the_answer_to_a_ping(
    status: int, content_type: str, start: bytes, expected: Standing
) -> None:
    assert protocol.ping_standing(status, content_type, start) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, False), (404, False), (408, True), (425, True), (429, True), (500, True), (599, True)],
)
def test_knows_which_status_means_not_now(status: int, expected: bool) -> None:
    assert protocol.is_unavailable(status) is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"", None, id="nothing"),
        pytest.param(b"<html>", None, id="page"),
        pytest.param(b"\xff\xfe", None, id="not text"),
        pytest.param(b"[" * 200_000, None, id="nested beyond reason"),
        pytest.param(b"[]", None, id="an array"),
        pytest.param(b"{}", None, id="no data"),
        pytest.param(b'{"data": null}', None, id="null"),
        pytest.param(b'{"data": ""}', None, id="empty data"),
        pytest.param(b'{"data": {"url": "https://s3/x"}}', None, id="an object"),
        pytest.param(b'{"data": "signing is not supported"}', None, id="a message"),
        pytest.param(b'{"data": "https://s3/x?s=1"}', "https://s3/x?s=1", id="a URL"),
    ],
)
def test_takes_the_signed_url_out_of_the_reply(body: bytes, expected: str | None) -> None:
    assert protocol.signed_url(body) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("", False, id="empty"),
        pytest.param("https://s3.example.org/x?sig=1", True, id="https"),
        pytest.param("http://minio:9000/x", True, id="http"),
        pytest.param("file:///etc/passwd", False, id="file"),
        pytest.param("gopher://127.0.0.1:6379/_x", False, id="gopher"),
        pytest.param("/storage/signed?a=b", False, id="relative"),
        pytest.param("https://user:pass@s3.example.org/x", False, id="user name"),
        pytest.param("https://s3.example.org@169.254.169.254/x", False, id="host in disguise"),
        pytest.param("https:///x", False, id="no host"),
        pytest.param("https://s3:99999/x", False, id="port out of range"),
        pytest.param("https://s3/x\r\nX: y", False, id="line break"),
        pytest.param("https://s3/x y", False, id="space"),
        pytest.param("https://s3/x\x7f", False, id="delete"),
        pytest.param("https://[::1", False, id="broken IPv6"),
    ],
)
def test_refuses_an_address_by_its_form(url: str, expected: bool) -> None:
    assert protocol.is_fetchable(url) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(None, None, id="no header"),
        pytest.param("", None, id="empty"),
        pytest.param("soon", None, id="nonsense"),
        pytest.param("-3", None, id="negative"),
        pytest.param("٣", None, id="digits of another script"),
        pytest.param(" 7 ", 7.0, id="seconds"),
        pytest.param("86400", 3600.0, id="at most an hour"),
        pytest.param("9" * 400, 3600.0, id="beyond any float"),
        pytest.param("Thu, 02 Sep 2021 08:00:30 GMT", 30.0, id="a date"),
        pytest.param("Thu, 02 Sep 2021 08:00:30 -0000", 30.0, id="a date without a zone"),
        pytest.param("Thu, 02 Sep 2021 07:00:00 GMT", 0.0, id="a date in the past"),
        pytest.param("Thu, 02 Sep 2022 07:00:00 GMT", 3600.0, id="a date far away"),
    ],
)
def test_reads_when_to_come_back(value: str | None, expected: float | None) -> None:
    assert protocol.retry_after_s(value, NOW) == expected


@pytest.mark.parametrize(
    ("date", "expected"), [(None, None), ("", None), ("soon", None), (format_datetime(NOW), 0.0)]
)
def test_knows_how_far_the_clocks_are_apart(date: str | None, expected: float | None) -> None:
    assert protocol.clock_ahead_s(date, NOW) == expected


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("", ""),
        ("http://[::1", ""),
        ("/x?s=2", "https://s3/x?s=2"),
        ("https://other/x", "https://other/x"),
    ],
)
def test_knows_where_a_redirect_leads(location: str, expected: str) -> None:
    assert protocol.redirect_target("https://s3/a?s=1", location) == expected


def test_the_bulk_reply_is_json_in_json() -> None:
    assert protocol.bulk_reply([]) == b'{"data": "{}"}'
    reply = json.loads(protocol.bulk_reply([("u/1.mp4", "https://s3/1")]))
    assert json.loads(reply["data"]) == {"u/1.mp4": "https://s3/1"}


def test_headers_have_the_agents_spelling() -> None:
    assert [
        f"X-Kerberos-Storage-{name}"
        for name in (
            "FileName",
            "Provider",
            "AccessKey",
            "SecretAccessKey",
            "CloudKey",
            "Device",
            "Capture",
            "Directory",
            "Fps",
            "Duration",
            "Timestamp",
        )
    ] == [
        protocol.FILE_NAME,
        protocol.PROVIDER,
        protocol.ACCESS_KEY,
        protocol.SECRET_KEY,
        protocol.CLOUD_KEY,
        protocol.DEVICE,
        protocol.CAPTURE,
        protocol.DIRECTORY,
        protocol.FPS,
        protocol.DURATION,
        protocol.TIMESTAMP,
    ]
