"""What OUTCOMES may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from vault_ml.stores.address import RedisServer, SqliteFile, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("sqlite:/var/lib/o.db", SqliteFile(Path("/var/lib/o.db")), id="file"),
        pytest.param("sqlite:///var/lib/o.db", SqliteFile(Path("/var/lib/o.db")), id="as-a-url"),
        pytest.param("SQLite:o.db", SqliteFile(Path("o.db")), id="relative"),
        pytest.param("redis://cache", RedisServer("cache", 6379, 0, uses_tls=False), id="host"),
        pytest.param("redis://c:7000/3", RedisServer("c", 7000, 3, uses_tls=False), id="database"),
        pytest.param("rediss://c/", RedisServer("c", 6379, 0, uses_tls=True), id="tls"),
        pytest.param("redis://[::1]:1/0", RedisServer("::1", 1, 0, uses_tls=False), id="ipv6"),
    ],
)
def test_addresses_are_understood(text: str, expected: object) -> None:
    assert parse(text) == expected


def test_a_server_names_itself() -> None:
    assert str(RedisServer("::1", 6379, 0, uses_tls=False)) == "[::1]:6379"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("", "must be sqlite", id="empty"),
        pytest.param("outcomes.db", "must be sqlite", id="no-scheme"),
        pytest.param("postgres://h/d", "must be sqlite", id="another-scheme"),
        pytest.param("sqlite:", "name a file", id="no-file"),
        pytest.param("sqlite:/var/lib/", "name a file", id="folder"),
        pytest.param("sqlite://host/o.db", "of this host", id="file-elsewhere"),
        pytest.param("redis://", "redis://host", id="no-host"),
        pytest.param("redis://h:x/0", "redis://host", id="no-port"),
        pytest.param("redis://h:0/0", "redis://host", id="port-0"),
        pytest.param("redis://h/cache", "redis://host", id="no-number"),
        pytest.param("redis://h/0?password=canary", "redis://host", id="query"),
        pytest.param("redis://:canary@h/0", "OUTCOMES_PASSWORD", id="password"),
    ],
)
def test_what_is_no_address_is_said_without_repeating_it(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as raised:
        parse(text)
    assert "canary" not in str(raised.value)
