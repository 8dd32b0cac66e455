"""What every store of scenes keeps: inherit `SceneContract` and give it `open_scenes`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from vault_ml.scene.port import SceneStore

Open = Callable[..., SceneStore]


def remembered(store: SceneStore, camera: str) -> str | None:
    """What is there now; it stays, or `` where nothing was."""
    found: list[str | None] = []

    def look(text: str | None) -> str:
        found.append(text)
        return text or ""

    store.change(camera, look)
    return found[-1] or None


class SceneContract:
    """The cases. `open_scenes(max_cameras=)` opens the same store each time."""

    @pytest.fixture
    def open_scenes(self) -> Iterator[Open]:
        raise NotImplementedError

    @pytest.fixture
    def store(self, open_scenes: Open) -> SceneStore:
        return open_scenes()

    def test_an_empty_store_knows_no_camera(self, store: SceneStore) -> None:
        store.ping()
        assert remembered(store, "gate") is None

    def test_what_a_change_makes_is_there_for_the_next_and_for_this_camera_alone(
        self, store: SceneStore
    ) -> None:
        store.change("é/'\"-gate", lambda text: f"{text} one")
        store.change("é/'\"-gate", lambda text: f"{text} two")
        assert remembered(store, "é/'\"-gate") == "None one two"
        assert remembered(store, "yard") is None

    def test_it_is_there_when_another_opens_the_store(
        self, store: SceneStore, open_scenes: Open
    ) -> None:
        store.change("gate", lambda _: "car")
        other = open_scenes()
        assert remembered(other, "gate") == "car"
        store.close()
        store.close()
        assert remembered(other, "gate") == "car"

    def test_a_change_that_fails_changes_nothing(self, store: SceneStore) -> None:
        def fail(_text: str | None) -> str:
            raise ZeroDivisionError

        store.change("gate", lambda _: "car")
        with pytest.raises(ZeroDivisionError):
            store.change("gate", fail)
        assert remembered(store, "gate") == "car"

    def test_of_changes_at_the_same_time_none_is_lost(self, open_scenes: Open) -> None:
        """Workers, threads: each adds its letter to what it finds."""
        trouble: list[BaseException] = []

        def work(letter: str) -> None:
            try:
                store = open_scenes()
                for _ in range(20):
                    store.change("gate", lambda text: (text or "") + letter)
            except BaseException as error:  # noqa: BLE001  told by the test's own thread
                trouble.append(error)

        threads = [threading.Thread(target=work, args=(letter,)) for letter in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert trouble == []
        assert sorted(remembered(open_scenes(), "gate") or "") == sorted("abcd" * 20)

    def test_only_so_many_cameras_are_kept_and_the_newest_of_them(self, open_scenes: Open) -> None:
        store = open_scenes(max_cameras=100)
        for number in range(400):
            store.change(f"camera-{number:03}", lambda _: "car")
        kept = [number for number in range(400) if knows(store, f"camera-{number:03}")]
        assert kept == list(range(300, 400))


def knows(store: SceneStore, camera: str) -> bool:
    """Whether a camera is known; nothing is changed."""

    class _Seen(Exception):
        pass

    found: list[str | None] = []

    def look(text: str | None) -> str:
        found.append(text)
        raise _Seen

    with pytest.raises(_Seen):
        store.change(camera, look)
    return found[0] is not None
