"""The contract of the scenes on a SQLite file, and what files can do to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from contract.scene_contract import Open, SceneContract, remembered
from vault_ml.errors import SceneUnavailable
from vault_ml.scene.port import SceneStore
from vault_ml.scene.sqlite import SqliteScenes


class TestSqliteScenes(SceneContract):
    @pytest.fixture
    def open_scenes(self, tmp_path: Path) -> Iterator[Open]:
        opened: list[SqliteScenes] = []
        ticks = count(1_772_000_000)

        def open_one(**options: int) -> SceneStore:
            store = SqliteScenes(
                tmp_path / "scenes.db", max_age_s=1e9, clock=lambda: float(next(ticks)), **options
            )
            opened.append(store)
            return store

        yield open_one
        for one in opened:
            one.close()


def test_a_lock_that_lasts_is_an_outage_and_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vault_ml.scene.sqlite._BUSY_S", 0.2)
    store = SqliteScenes(tmp_path / "scenes.db", max_age_s=1e9)
    other = sqlite3.connect(tmp_path / "scenes.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SceneUnavailable, match="locked"):
        store.change("gate", lambda _: "car")
    other.execute("ROLLBACK")
    other.close()
    store.change("gate", lambda _: "car")
    assert remembered(store, "gate") == "car"
    store.close()
    with pytest.raises(SceneUnavailable):
        store.ping()
