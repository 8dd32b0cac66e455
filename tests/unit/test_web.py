from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from vault_ml.errors import ConfigError, VaultUnavailable
from vault_ml.telemetry.health import Health
from vault_ml.telemetry.metrics import Metrics
from vault_ml.web import WebServer


@pytest.fixture
def health() -> Health:
    return Health(stalled_after_s=3600)


@pytest.fixture
def server(health: Health) -> Iterator[WebServer]:
    with WebServer("127.0.0.1", 0, health=health, metrics=Metrics()) as server:
        yield server


def test_it_answers_as_soon_as_it_has_started(server: WebServer) -> None:
    answer = httpx.get(f"{server.url}/healthz")
    assert (answer.status_code, answer.json()) == (200, {"alive": True})
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers


def test_readiness_gives_its_reasons(server: WebServer, health: Health) -> None:
    answer = httpx.get(f"{server.url}/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "reasons": {"worker": "it is starting"}}

    def away() -> None:
        raise VaultUnavailable

    health.beat()
    health.watch("vault", away)
    answer = httpx.get(f"{server.url}/readyz")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == {"vault": "Kerberos Vault does not answer."}
    health.watch("vault", lambda: None)
    answer = httpx.get(f"{server.url}/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "reasons": {}})


def test_a_stalled_loop_is_not_healthy() -> None:
    health = Health(stalled_after_s=-1)
    health.beat()
    with WebServer("127.0.0.1", 0, health=health, metrics=Metrics()) as server:
        answer = httpx.get(f"{server.url}/healthz")
    assert answer.status_code == 503
    assert "has not moved" in answer.json()["reason"]


def test_metrics_are_served_in_prometheus_text(server: WebServer) -> None:
    answer = httpx.get(f"{server.url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'vault_ml_recordings_total{outcome="processed"} 0.0' in answer.text


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz/x", "/../etc/passwd"])
def test_there_is_nothing_else(server: WebServer, path: str) -> None:
    assert httpx.get(f"{server.url}{path}").status_code == 404
    assert httpx.post(f"{server.url}/healthz").status_code == 405


def test_a_slow_readiness_answer_holds_up_no_other(server: WebServer, health: Health) -> None:
    release = threading.Event()
    health.beat()

    def hang() -> None:
        release.wait(20)

    health.watch("broker", hang)
    slow = threading.Thread(target=lambda: httpx.get(f"{server.url}/readyz", timeout=20))
    slow.start()
    assert httpx.get(f"{server.url}/healthz", timeout=5).status_code == 200
    release.set()
    slow.join(10)
    assert not slow.is_alive()


def test_a_taken_address_is_told_in_a_sentence() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = WebServer("127.0.0.1", port, health=Health(), metrics=Metrics())
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: another program uses it"):
            server.start()
        server.stop()


@pytest.mark.parametrize(
    ("host", "sentence"),
    [("no-such-host.invalid", "host is unknown"), ("192.0.2.1", "does not have that address")],
)
def test_an_address_that_is_not_ours_is_told_in_a_sentence(host: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        WebServer(host, 18080, health=Health(), metrics=Metrics()).start()


def test_it_stops_within_a_second_though_a_client_holds_its_connection() -> None:
    server = WebServer("127.0.0.1", 0, health=Health(), metrics=Metrics())
    server.start()
    with httpx.Client() as client:
        client.get(f"{server.url}/healthz")
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 1
    server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/healthz")


def test_it_serves_again_on_the_same_port_at_once() -> None:
    with WebServer("127.0.0.1", 0, health=Health(), metrics=Metrics()) as first:
        port = int(first.url.rpartition(":")[2])
        httpx.get(f"{first.url}/healthz")
    with WebServer("127.0.0.1", port, health=Health(), metrics=Metrics()) as second:
        assert httpx.get(f"{second.url}/healthz").status_code == 200


def test_an_ipv6_address_is_written_with_brackets() -> None:
    server = WebServer("::1", 8080, health=Health(), metrics=Metrics())
    assert server.url == "http://[::1]:8080"
