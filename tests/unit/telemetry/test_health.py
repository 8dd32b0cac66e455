from __future__ import annotations

import threading
import time

import pytest

from vault_ml.errors import BrokerUnavailable, VaultUnavailable
from vault_ml.telemetry.health import Health


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def well() -> None:
    return


def test_before_the_loop_begins_it_is_alive_and_not_ready() -> None:
    health = Health()
    assert health.stalled_for_s() is None
    assert health.unready_reasons() == {"worker": "it is starting"}


def test_it_is_ready_when_the_loop_moves_and_all_pings_pass() -> None:
    health = Health()
    health.watch("vault", well)
    health.watch("broker", well)
    health.beat()
    assert health.unready_reasons() == {}


def test_a_failed_ping_is_a_reason_with_its_sentence() -> None:
    health = Health()
    health.beat()

    def refused() -> None:
        raise VaultUnavailable("the Vault at vault.example does not answer")

    health.watch("vault", refused)
    health.watch("broker", well)
    assert health.unready_reasons() == {"vault": "the Vault at vault.example does not answer"}


def test_an_unexpected_error_of_a_ping_is_named_without_its_text() -> None:
    health = Health()
    health.beat()

    def buggy() -> None:
        raise RuntimeError("canary")

    health.watch("vault", buggy)
    assert health.unready_reasons() == {"vault": "its ping failed with an unexpected RuntimeError"}


def test_it_becomes_ready_again_when_the_dependency_is_back() -> None:
    clock = Clock()
    health = Health(now=clock)
    health.beat()
    is_away = True

    def ping() -> None:
        if is_away:
            raise BrokerUnavailable

    health.watch("broker", ping)
    assert health.unready_reasons()
    is_away = False
    assert health.unready_reasons()  # known for the next seconds
    clock.now_s += 6
    assert health.unready_reasons() == {}


def test_a_dependency_is_not_pinged_by_every_probe() -> None:
    pings = []
    health = Health(now=Clock())
    health.beat()
    health.watch("vault", lambda: pings.append(1))
    for _ in range(10):
        health.unready_reasons()
    assert len(pings) == 1


def test_a_ping_that_hangs_does_not_hang_the_answer() -> None:
    clock, release = Clock(), threading.Event()
    health = Health(now=clock)
    health.beat()

    def hang() -> None:
        release.wait(30)

    health.watch("broker", hang)
    started = time.monotonic()
    assert health.unready_reasons() == {"broker": "not checked yet"}
    assert time.monotonic() - started < 5
    clock.now_s += 20
    assert health.unready_reasons() == {"broker": "no answer to a ping for 20 s"}
    release.set()
    deadline = time.monotonic() + 10
    while health.unready_reasons() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert health.unready_reasons() == {}


def test_an_outage_makes_it_unready_and_not_dead() -> None:
    clock = Clock()
    outages = {"vault": "Kerberos Vault does not answer."}
    health = Health(now=clock, stalled_after_s=60)
    health.watch_outages(lambda: outages)
    health.watch("vault", well)
    health.beat()
    clock.now_s += 3600
    assert health.stalled_for_s() is None
    assert health.unready_reasons() == {"vault": "Kerberos Vault does not answer."}


def test_a_loop_that_does_not_move_is_not_alive() -> None:
    clock = Clock()
    health = Health(now=clock, stalled_after_s=60)
    health.beat()
    clock.now_s += 60
    assert health.stalled_for_s() is None
    clock.now_s += 1
    assert health.stalled_for_s() == pytest.approx(61)
    health.beat()
    assert health.stalled_for_s() is None


def test_while_draining_it_is_alive_and_not_ready() -> None:
    clock = Clock()
    health = Health(now=clock, stalled_after_s=60)
    health.beat()
    health.drain()
    clock.now_s += 3600
    assert health.stalled_for_s() is None
    assert health.unready_reasons() == {"worker": "it is stopping"}
