"""The contract of the outcome stores on Redis itself, and what a server can do to it."""

from __future__ import annotations

import builtins
import datetime as dt
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from connected.start_redis import PASSWORD, Redis, client, started
from contract.outcome_contract import Open, OutcomeContract, outcome
from vault_ml.errors import ConfigError, CredentialsRejected, OutcomesUnavailable
from vault_ml.outcomes.opening import open_store
from vault_ml.outcomes.port import OutcomeStore
from vault_ml.stores.address import RedisServer

pytestmark = pytest.mark.connected


def store_at(server: RedisServer, **options: Any) -> Any:
    from vault_ml.outcomes.redis import RedisOutcomes

    return RedisOutcomes(server, **{"max_age_s": 1e9, "max_count": 10**6, **options})


class TestRedisOutcomes(OutcomeContract):
    @pytest.fixture
    def open_store(self, redis_server: RedisServer) -> Iterator[Open]:
        opened: list[OutcomeStore] = []

        def open_one(**options: Any) -> OutcomeStore:
            opened.append(store_at(redis_server, **options))
            return opened[-1]

        yield open_one
        for one in opened:
            one.close()


def test_old_outcomes_are_forgotten_by_redis_itself(redis_server: RedisServer) -> None:
    store = store_at(redis_server, max_age_s=1.0)
    now = time.time()
    store.remember("run", outcome(now))
    store.remember("too-old", outcome(now - 2))
    assert store.find("run") == outcome(now)
    assert store.find("too-old") is None
    store.mark_removed("run")
    deadline = time.monotonic() + 10
    while store.find("run") is not None:
        assert time.monotonic() < deadline, "a mark must not make it stay for ever"
        time.sleep(0.05)
    store._aged.prune()
    assert client(redis_server).dbsize() == 0
    store.close()


def test_what_somebody_else_wrote_is_no_outcome(redis_server: RedisServer) -> None:
    for text in (b"", b"{}", b"[1]", b"\xff", b'{"steps": 5}'):
        client(redis_server).set("vault-ml:outcome:run", text)
        store = store_at(redis_server)
        assert store.find("run") is None
        store.close()


def test_a_server_that_is_away_is_an_outage_and_ends_with_it(redis: Redis) -> None:
    store = store_at(redis.server)
    store.remember("run", outcome(time.time()))
    redis.kill()
    try:
        started_at = time.monotonic()
        for question in (store.ping, lambda: store.find("run"), lambda: store.mark_removed("run")):
            with pytest.raises(OutcomesUnavailable, match=f"127.0.0.1:{redis.server.port}"):
                question()
        with pytest.raises(OutcomesUnavailable):
            store.remember("run", outcome(time.time()))
        assert time.monotonic() - started_at < 10
    finally:
        redis.start()
    assert store.find("run") is None, "this Redis keeps nothing over its restart"
    store.remember("run", outcome(time.time()))
    assert store.find("run") is not None
    store.close()


def test_a_full_server_is_an_outage(redis: Redis) -> None:
    admin = client(redis.server)
    admin.config_set("maxmemory", 1)
    store = store_at(redis.server)
    try:
        with pytest.raises(OutcomesUnavailable, match="is full"):
            store.remember("run", outcome(time.time()))
    finally:
        admin.config_set("maxmemory", 0)
        store.close()


def test_a_wrong_password_is_said_and_never_repeated() -> None:
    for redis in started("--requirepass", PASSWORD):
        good = store_at(redis.server, password=PASSWORD)
        good.ping()
        good.close()
        for password in ("", "canary-wrong"):
            store = store_at(redis.server, password=password)
            with pytest.raises(CredentialsRejected, match="OUTCOMES_PASSWORD") as raised:
                store.ping()
            assert "canary" not in str(raised.value)
            with pytest.raises(OutcomesUnavailable):
                store.find("run")
            store.close()


def test_a_database_that_is_not_there_is_a_configuration_error(redis: Redis) -> None:
    server = redis.server
    store = store_at(RedisServer(server.host, server.port, 999, uses_tls=False))
    with pytest.raises(ConfigError, match="database 999"):
        store.ping()
    store.close()


def test_the_package_is_asked_for_when_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    really = builtins.__import__

    def without_redis(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "redis" or name.startswith("redis."):
            raise ImportError(name)
        return really(name, *args, **kwargs)

    for module in [name for name in sys.modules if name.split(".")[0] == "redis"]:
        monkeypatch.delitem(sys.modules, module)
    for module in ("outcomes.redis", "stores.redis_server"):
        monkeypatch.delitem(sys.modules, f"vault_ml.{module}", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_redis)
    with pytest.raises(ConfigError, match=r"pip install 'vault-ml\[redis\]'"):
        open_store("redis://localhost/0", max_age_s=1, max_count=1)


def test_tls_is_spoken_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = self_signed(tmp_path)
    options = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key),
               "--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no")  # fmt: skip
    for redis in started(*options, tls=True):
        stranger = store_at(redis.server)
        with pytest.raises(OutcomesUnavailable):
            stranger.ping()
        stranger.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        store = store_at(redis.server)
        store.remember("run", outcome(time.time()))
        assert store.find("run") is not None
        store.close()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "redis.crt", folder / "redis.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files
