"""The contract of the scenes on Redis itself, and what a server can do to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from connected.start_redis import PASSWORD, Redis, client, started
from contract.scene_contract import Open, SceneContract, knows, remembered
from vault_ml.errors import CredentialsRejected, SceneUnavailable
from vault_ml.scene.opening import open_scenes as opened_by_address
from vault_ml.scene.port import SceneStore
from vault_ml.scene.redis import RedisScenes
from vault_ml.stores.address import RedisServer

pytestmark = pytest.mark.connected


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[SceneStore]:
    store = RedisScenes(redis_server, max_age_s=1e9)
    yield store
    store.close()


class TestRedisScenes(SceneContract):
    @pytest.fixture
    def open_scenes(self, redis_server: RedisServer) -> Iterator[Open]:
        opened: list[RedisScenes] = []
        # As if a recording came every ten milliseconds: none is old, none as old as another.
        begun, ticks = time.time(), count()

        def open_one(**options: Any) -> SceneStore:
            store = RedisScenes(
                redis_server, max_age_s=1e9, clock=lambda: begun + next(ticks) / 100, **options
            )
            opened.append(store)
            return store

        yield open_one
        for one in opened:
            one.close()


def test_a_camera_of_which_nothing_came_is_forgotten_by_redis_itself(
    redis_server: RedisServer,
) -> None:
    store = RedisScenes(redis_server, max_age_s=1.0)
    store.change("gate", lambda _: "car")
    assert knows(store, "gate")
    deadline = time.monotonic() + 30
    while knows(store, "gate"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    store.close()


def test_whoever_comes_second_looks_again(redis_server: RedisServer, store: SceneStore) -> None:
    other, asked = RedisScenes(redis_server, max_age_s=1e9), list[str | None]()

    def change(text: str | None) -> str:
        asked.append(text)
        if len(asked) == 1:
            other.change("gate", lambda _: "theirs")
        return (text or "") + " ours"

    store.change("gate", change)
    assert asked == [None, "theirs"]
    assert remembered(store, "gate") == "theirs ours"
    other.close()


def test_a_camera_that_never_comes_to_rest_is_an_outage(
    redis_server: RedisServer, store: SceneStore
) -> None:
    other = client(redis_server)

    def change(_text: str | None) -> str:
        other.set("vault-ml:scene:gate", "theirs")
        return "ours"

    with pytest.raises(SceneUnavailable, match="too many at once"):
        store.change("gate", change)


def test_a_server_that_is_away_is_an_outage_and_ends_with_it(redis: Redis) -> None:
    store = opened_by_address(f"redis://127.0.0.1:{redis.server.port}/0", max_age_s=1e9)
    store.change("gate", lambda _: "car")
    redis.kill()
    try:
        for question in (store.ping, lambda: store.change("gate", lambda _: "car")):
            with pytest.raises(SceneUnavailable, match=f"127.0.0.1:{redis.server.port}"):
                question()
    finally:
        redis.start()
    store.change("gate", lambda _: "car")
    store.close()


def test_a_wrong_password_is_said_with_its_variable() -> None:
    for redis in started("--requirepass", PASSWORD):
        good = RedisScenes(redis.server, password=PASSWORD, max_age_s=1e9)
        good.ping()
        good.close()
        store = RedisScenes(redis.server, password="canary-wrong", max_age_s=1e9)
        with pytest.raises(CredentialsRejected, match="STATIC_MEMORY_PASSWORD") as raised:
            store.ping()
        assert "canary" not in str(raised.value)
        store.close()
