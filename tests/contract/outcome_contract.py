"""What every store of finished runs keeps: inherit `OutcomeContract` and give it `open_store`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from vault_ml.outcomes.port import Outcome, OutcomeStore

NOW = 1_772_000_000.0
Open = Callable[..., OutcomeStore]


class Clock:
    """Unix seconds that a test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def outcome(at: float = NOW, *, removed: bool = False) -> Outcome:
    return Outcome(frozenset({"publish a", "forward_media"}), "ab" * 32, True, at, removed)


class OutcomeContract:
    """The cases. `open_store(clock=, max_age_s=, max_count=)` opens the same store each time."""

    @pytest.fixture
    def open_store(self) -> Iterator[Open]:
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def store(self, open_store: Open, clock: Clock) -> OutcomeStore:
        return open_store(clock=clock, max_age_s=3600.0, max_count=100_000)

    def test_an_empty_store_knows_no_run(self, store: OutcomeStore) -> None:
        store.ping()
        assert store.find("some-run") is None
        store.mark_removed("some-run")
        assert store.find("some-run") is None

    def test_what_is_remembered_is_found_unchanged(self, store: OutcomeStore) -> None:
        store.remember("é/'\"-run", outcome())
        assert store.find("é/'\"-run") == outcome()
        assert store.find("another") is None

    def test_no_steps_are_remembered_too(self, store: OutcomeStore) -> None:
        bare = Outcome(frozenset(), "", False, NOW)
        store.remember("run", bare)
        assert store.find("run") == bare

    def test_the_newest_outcome_of_a_run_counts(self, store: OutcomeStore) -> None:
        store.remember("run", outcome(NOW - 5, removed=True))
        newer = Outcome(frozenset({"publish b"}), "cd" * 32, False, NOW)
        store.remember("run", newer)
        assert store.find("run") == newer

    def test_a_removal_is_noted(self, store: OutcomeStore) -> None:
        store.remember("run", outcome())
        store.mark_removed("run")
        assert store.find("run") == outcome(removed=True)

    def test_it_is_there_when_another_opens_the_store(
        self, store: OutcomeStore, open_store: Open, clock: Clock
    ) -> None:
        store.remember("run", outcome())
        other = open_store(clock=clock, max_age_s=3600.0, max_count=100_000)
        assert other.find("run") == outcome()
        other.mark_removed("run")
        assert store.find("run") == outcome(removed=True)
        store.close()
        store.close()
        assert other.find("run") is not None

    def test_only_so_many_are_kept_and_the_newest_of_them(
        self, open_store: Open, clock: Clock
    ) -> None:
        store = open_store(clock=clock, max_age_s=3600.0, max_count=100)
        for number in range(1000):
            store.remember(f"run-{number}", outcome(NOW + number / 1000))
        kept = [number for number in range(1000) if store.find(f"run-{number}") is not None]
        assert kept == list(range(900, 1000))

    def test_threads_share_it(self, store: OutcomeStore) -> None:
        trouble: list[BaseException] = []

        def work(name: int) -> None:
            try:
                for number in range(30):
                    store.remember(f"{name}-{number}", outcome())
                    assert store.find(f"{name}-{number}") == outcome()
            except BaseException as error:  # noqa: BLE001  told by the test's own thread
                trouble.append(error)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert trouble == []
