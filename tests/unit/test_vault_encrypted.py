"""Encrypted recordings: recognised by content, decrypted anywhere, never taken for empty."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encrypted_files import encrypted
from vault_ml.errors import RecordingEncrypted, RecordingIncomplete
from vault_ml.vault.encrypted import FileBytes, PlainBytes, Readable, RecordingKeys

KEY = "canary key, with ünicode"
MP4 = b"\x00\x00\x00\x18ftypisom" + random.Random(4).randbytes(100_005)


class Stored:
    """Bytes that note where they were read."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size_bytes = len(content)
        self.reads: list[tuple[int, int]] = []

    def read_at(self, offset: int, size: int) -> bytes:
        assert offset >= 0
        self.reads.append((offset, size))
        return self.content[offset : offset + size]


def encrypt(content: bytes, passphrase: str = KEY) -> bytes:
    return encrypted(content, passphrase)


def unlock(stored: bytes, *passphrases: str) -> Readable:
    unlocked = RecordingKeys(passphrases).unlocked(Stored(stored))
    assert not isinstance(unlocked, int)
    return unlocked


@pytest.fixture
def openssl() -> str:
    path = shutil.which("openssl")
    if path is None:
        pytest.skip("openssl is not here")
    return path


def test_what_openssl_encrypts_is_read(openssl: str, tmp_path: Path) -> None:
    plain, secret = tmp_path / "plain.mp4", tmp_path / "secret.mp4"
    plain.write_bytes(MP4)
    command = [openssl, "aes-256-cbc", "-md", "md5", "-pass", f"pass:{KEY}"]
    subprocess.run([*command, "-in", plain, "-out", secret], check=True, capture_output=True)
    assert unlock(secret.read_bytes(), "wrong", KEY).read_at(0, 10**6) == MP4
    back = subprocess.run([*command, "-d"], input=encrypt(MP4), check=True, capture_output=True)
    assert back.stdout == MP4


def test_what_is_not_encrypted_stays_what_it_is(tmp_path: Path) -> None:
    keys = RecordingKeys([KEY])
    for content in (b"", b"Salted_", MP4, b"salted__" + MP4):
        source = Stored(content)
        assert keys.unlocked(source) is source
        path = tmp_path / "x"
        path.write_bytes(content)
        with path.open("rb") as file:
            assert keys.unlocked(file.fileno()) == file.fileno()
    assert len(source.reads) == 1


@given(
    st.integers(16, 600),
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 700)), max_size=5),
)
def test_any_stretch_is_decrypted_by_itself(size: int, reads: list[tuple[int, int]]) -> None:
    content = MP4[:size]
    source = Stored(encrypt(content))
    plain = RecordingKeys([KEY]).unlocked(source)
    assert isinstance(plain, PlainBytes)
    assert plain.size_bytes == size
    for offset, length in reads:
        source.reads.clear()
        assert plain.read_at(offset, length) == content[offset : offset + length]
        assert sum(read for _, read in source.reads) <= length + 3 * 16


def test_a_file_is_decrypted_in_place(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(encrypt(MP4))
    fd = os.open(path, os.O_RDONLY)
    try:
        plain = RecordingKeys([KEY]).unlocked(fd)
        assert isinstance(plain, PlainBytes)
        assert plain.read_at(0, len(MP4) + 1) == MP4
        assert FileBytes(fd).size_bytes == len(MP4) + 16 + 16 - len(MP4) % 16
    finally:
        os.close(fd)


@pytest.mark.parametrize("keys", [(), ("wrong",), ("wrong", "also wrong", KEY + " ")])
def test_no_key_is_said_and_never_taken_for_an_empty_recording(keys: tuple[str, ...]) -> None:
    with pytest.raises(RecordingEncrypted, match="RECORDING_KEYS") as caught:
        unlock(encrypt(MP4), *keys)
    assert "canary" not in str(caught.value)
    assert "wrong" not in str(caught.value)
    assert caught.value.max_attempts is None
    with pytest.raises(RecordingEncrypted) as caught:
        RecordingKeys(keys, is_worth_waiting=False).unlocked(Stored(encrypt(MP4)))
    assert caught.value.max_attempts == 1


def test_a_wrong_key_is_no_key_however_often_it_is_tried() -> None:
    """Noise ends in valid padding once in 256 times; that alone must not open a recording."""
    stored = encrypt(MP4)
    for number in range(2000):
        with pytest.raises(RecordingEncrypted):
            unlock(stored, f"wrong {number}")


@pytest.mark.parametrize(
    "start",
    [b"\x1aE\xdf\xa3" + bytes(40), b"RIFF" + bytes(40), b"G" + bytes(187),
     b"\xff\xd8\xff" + bytes(40), b"\x00\x00\x00\x08wide" + bytes(40),
     b"\x00\x00\x00\x10styp" + bytes(40)],
    ids=["mkv", "avi", "ts", "jpeg", "mov", "segment"],
)  # fmt: skip
def test_every_format_is_recognised(start: bytes) -> None:
    assert unlock(encrypt(start), "wrong", KEY).read_at(0, 1000) == start


@pytest.mark.parametrize("lost", [1, 7, 16, 17, 5000])
def test_a_recording_that_was_cut_off_is_read_as_far_as_it_goes(lost: int) -> None:
    stored = encrypt(MP4)[:-lost]
    plain = unlock(stored, "wrong", KEY)
    whole_blocks = (len(stored) - 16) // 16 * 16
    assert plain.size_bytes == whole_blocks
    assert plain.read_at(0, 10**6) == MP4[:whole_blocks]


@pytest.mark.parametrize("size", [8, 15, 16, 17, 31])
def test_a_recording_that_ends_before_its_content_is_not_complete_yet(size: int) -> None:
    with pytest.raises(RecordingIncomplete):
        unlock(encrypt(MP4)[:size], KEY)


def test_a_recording_that_shrinks_while_it_is_read_gives_less() -> None:
    source = Stored(encrypt(MP4))
    plain = RecordingKeys([KEY]).unlocked(source)
    assert not isinstance(plain, int)
    source.content = source.content[:1000]
    assert plain.read_at(900, 500) == MP4[900:976]
    assert plain.read_at(5000, 500) == b""


def test_keys_do_not_show_themselves() -> None:
    keys = RecordingKeys([KEY, "other"])
    assert repr(keys) == str(keys) == "RecordingKeys(2)"
