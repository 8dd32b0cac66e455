"""The embedded Vault's folder: whoever looks while others store and remove sees all or nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vault_ml.demo.vault_files import Files

KEYS = ("../../etc/passwd", "street/1.mp4")


def store(files: Files, key: str) -> None:
    with files.writing(key, {"X-Kerberos-Storage-Device": "street"}) as file:
        file.write(b"recording")


def test_any_key_is_stored_listed_and_removed(tmp_path: Path) -> None:
    files = Files(tmp_path / "vault")
    for key in KEYS:
        store(files, key)
        stored = files.get(key)
        assert stored is not None
        assert (stored.key, stored.size_bytes) == (key, len(b"recording"))
        assert stored.headers == {"X-Kerberos-Storage-Device": "street"}
    assert files.keys() == KEYS
    assert [files.remove(key) for key in (*KEYS, KEYS[0])] == [True, True, False]
    assert files.keys() == ()
    assert list((tmp_path / "vault").iterdir()) == []


def test_what_is_just_stored_or_removed_is_there_or_not(tmp_path: Path) -> None:
    files, rounds = Files(tmp_path), 300

    def store_and_remove() -> None:
        for _ in range(rounds):
            store(files, KEYS[0])
            files.remove(KEYS[0])

    with ThreadPoolExecutor(1) as pool:
        changes = pool.submit(store_and_remove)
        while not changes.done():
            stored = files.get(KEYS[0])
            assert stored is None or stored.key == KEYS[0]
            assert files.keys() in {(), KEYS[:1]}
        changes.result()
