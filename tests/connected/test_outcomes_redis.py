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

from connected.conftest import skip_or_fail
from connected.start_redis import PASSWORD, Redis, address_from_environment, why_not
from contract.outcome_contract import Open, OutcomeContract, outcome
from vault_ml.errors import ConfigError, CredentialsRejected, OutcomesUnavailable
from vault_ml.outcomes.address import RedisServer
from vault_ml.outcomes.opening import open_store
from vault_ml.outcomes.port import OutcomeStore

pytestmark = pytest.mark.connected


def started(*options: str, tls: bool = False) -> Iterator[Redis]:
    if reason := why_not():
        skip_or_fail("redis", reason)
    redis = Redis(*options, tls=tls)
    try:
        redis.start()
        yield redis
    finally:
        redis.close()


@pytest.fixture(scope="module")
def own_redis() -> Iterator[Redis | None]:
    """None when the environment names another."""
    if address_from_environment() is not None:
        yield None
    else:
        yield from started()


@pytest.fixture
def server(own_redis: Redis | None) -> RedisServer:
    address = own_redis.server if own_redis is not None else address_from_environment()
    assert address is not None
    client(address).flushdb()
    return address


@pytest.fixture
def redis(own_redis: Redis | None, server: RedisServer) -> Redis:
    """Ours, which may be killed."""
    if own_redis is None:
        pytest.skip("REDIS_TEST_URL names a server that is not ours to stop")
    return own_redis


def client(server: RedisServer, **options: Any) -> Any:
    import redis as library

    return library.Redis(host=server.host, port=server.port, db=server.database, **options)


def store_at(server: RedisServer, **options: Any) -> Any:
    from vault_ml.outcomes.redis import RedisOutcomes

    return RedisOutcomes(server, **{"max_age_s": 1e9, "max_count": 10**6, **options})


class TestRedisOutcomes(OutcomeContract):
    @pytest.fixture
    def open_store(self, server: RedisServer) -> Iterator[Open]:
        opened: list[OutcomeStore] = []

        def open_one(**options: Any) -> OutcomeStore:
            opened.append(store_at(server, **options))
            return opened[-1]

        yield open_one
        for one in opened:
            one.close()


def test_old_outcomes_are_forgotten_by_redis_itself(server: RedisServer) -> None:
    store = store_at(server, max_age_s=1.0)
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
    store._prune()
    assert client(server).dbsize() == 0
    store.close()


def test_what_somebody_else_wrote_is_no_outcome(server: RedisServer) -> None:
    for text in (b"", b"{}", b"[1]", b"\xff", b'{"steps": 5}'):
        client(server).set("vault-ml:outcome:run", text)
        store = store_at(server)
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
    monkeypatch.delitem(sys.modules, "vault_ml.outcomes.redis", raising=False)
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
