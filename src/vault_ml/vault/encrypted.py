"""Recordings that the Agent encrypted: OpenSSL's `Salted__` files, AES-256 in CBC mode.

Nothing outside says that a recording is encrypted, so its first bytes are looked at. Each block of
CBC needs only the block before it, so a recording can be decrypted anywhere, and one that is
fetched by ranges stays so.

Source: OpenSSL `apps/enc.c` (the file) and `EVP_BytesToKey` (the keys); what an Agent writes is
what `openssl aes-256-cbc -md md5` writes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Protocol

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC

from vault_ml.errors import RecordingEncrypted, RecordingIncomplete

MAGIC = b"Salted__"
BLOCK_BYTES = 16
_HEADER_BYTES = len(MAGIC) + 8  # and the salt
_KEY_BYTES, _IV_BYTES = 32, 16

# How recordings begin. At byte 4 an MP4 has the name of its first box; the others begin at once.
_BOXES = frozenset(
    (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx", b"pnot")
)
_STARTS = (b"\x1aE\xdf\xa3", b"RIFF", b"\xff\xd8\xff", b"\x89PNG", b"OggS", b"\x00\x00\x00\x01")
_TS_START = b"G"  # a single byte: a wrong key shows it once in 256


class Readable(Protocol):
    """A recording whose bytes can be had in ranges."""

    @property
    def size_bytes(self) -> int:
        """Length of the whole recording."""
        ...

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; fewer only at the end."""
        ...


class FileBytes:
    """A file, read by position; the descriptor stays the caller's."""

    def __init__(self, fd: int) -> None:
        """Read `fd`."""
        self._fd = fd
        self.size_bytes = os.fstat(fd).st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """As `Readable`."""
        return os.pread(self._fd, size, offset)


class RecordingKeys:
    """The passphrases that recordings may be encrypted with. Never shows them."""

    def __init__(self, passphrases: Sequence[str] = (), *, is_worth_waiting: bool = True) -> None:
        """Try `passphrases` in this order.

        Args:
            passphrases: RECORDING_KEYS.
            is_worth_waiting: an encrypted recording that none fits is tried again later, because
                somebody may add its key; False gives it up at once.
        """
        self._passphrases = tuple(text.encode() for text in passphrases)
        self._is_worth_waiting = is_worth_waiting

    def __repr__(self) -> str:
        return f"RecordingKeys({len(self._passphrases)})"

    def unlocked(self, source: int | Readable) -> int | Readable:
        """`source` itself when it is not encrypted, else its content.

        Args:
            source: a recording as it is stored: a descriptor, or something that reads ranges.

        Raises:
            RecordingEncrypted: no key fits.
            RecordingIncomplete: it ends before its content begins.
            VaultMLError: as `source.read_at` raises.
        """
        stored = FileBytes(source) if isinstance(source, int) else source
        head = stored.read_at(0, _HEADER_BYTES + 2 * BLOCK_BYTES)
        if not head.startswith(MAGIC):
            return source
        if len(head) < _HEADER_BYTES + BLOCK_BYTES:
            raise RecordingIncomplete("The recording is encrypted and ends before its content.")
        salt = head[len(MAGIC) : _HEADER_BYTES]
        tail = _tail(stored)
        for passphrase in self._passphrases:
            key, iv = derive(passphrase, salt)
            first = _decrypt(key, iv, head[_HEADER_BYTES : _HEADER_BYTES + BLOCK_BYTES])
            padding = 0 if tail is None else _padding(_decrypt(key, tail[0], tail[1]))
            if _looks_like_media(first, is_padded=padding > 0):
                return PlainBytes(stored, key, iv, padding)
        raise self._no_key()

    def _no_key(self) -> RecordingEncrypted:
        number = len(self._passphrases)
        tried = f"none of the {number} RECORDING_KEYS fits" if number else "RECORDING_KEYS is empty"
        return RecordingEncrypted(
            f"The recording is encrypted and {tried}; add the Agent's "
            "AGENT_ENCRYPTION_SYMMETRIC_KEY to RECORDING_KEYS.",
            max_attempts=None if self._is_worth_waiting else 1,
        )


class PlainBytes:
    """The content of an encrypted recording, decrypted where it is read.

    Attributes:
        size_bytes: length of the content.
    """

    def __init__(self, stored: Readable, key: bytes, iv: bytes, padding: int) -> None:
        """Decrypt `stored`, which stays the caller's.

        Args:
            stored: the recording as it is stored.
            key: of AES-256.
            iv: what stands for the block before the first.
            padding: bytes after the content; 0 for a recording that was cut off.
        """
        self._stored = stored
        self._key = key
        self._iv = iv
        self.size_bytes = _cipher_bytes(stored.size_bytes) - padding

    def read_at(self, offset: int, size: int) -> bytes:
        """As `Readable`; raises as the stored recording does."""
        end = min(offset + size, self.size_bytes)
        if offset >= end:
            return b""
        first, last = offset // BLOCK_BYTES, (end - 1) // BLOCK_BYTES
        # The block before the first one wanted, which for the very first is not in the file.
        start = _HEADER_BYTES + (first - 1) * BLOCK_BYTES
        blocks = self._stored.read_at(start, (last - first + 2) * BLOCK_BYTES)
        before, wanted = blocks[:BLOCK_BYTES], blocks[BLOCK_BYTES:]
        wanted = wanted[: len(wanted) // BLOCK_BYTES * BLOCK_BYTES]
        if not wanted:
            return b""
        plain = _decrypt(self._key, before if first else self._iv, wanted)
        return plain[offset - first * BLOCK_BYTES : end - first * BLOCK_BYTES]


def derive(passphrase: bytes, salt: bytes) -> tuple[bytes, bytes]:
    """Key (32 bytes) and initialisation vector (16 bytes), as OpenSSL with MD5 and one round.

    >>> derive(b"secret", bytes(8))[1].hex()
    'f00d0dd939d931cdd769b82b321f6cbb'
    """
    derived = last = b""
    while len(derived) < _KEY_BYTES + _IV_BYTES:
        last = hashlib.md5(last + passphrase + salt, usedforsecurity=False).digest()
        derived += last
    return derived[:_KEY_BYTES], derived[_KEY_BYTES : _KEY_BYTES + _IV_BYTES]


def _decrypt(key: bytes, iv: bytes, blocks: bytes) -> bytes:
    decryptor = Cipher(AES256(key), CBC(iv)).decryptor()
    return decryptor.update(blocks) + decryptor.finalize()


def _cipher_bytes(stored_bytes: int) -> int:
    """Length of the whole encrypted blocks; what a cut-off recording has besides is of no use."""
    return (stored_bytes - _HEADER_BYTES) // BLOCK_BYTES * BLOCK_BYTES


def _tail(stored: Readable) -> tuple[bytes, bytes] | None:
    """The last block and the one before it; None when the recording was cut off inside a block.

    The block before a single one is derived, not stored; such a recording has no picture, so it
    need not be told from one that was cut off.
    """
    cipher_bytes = _cipher_bytes(stored.size_bytes)
    if cipher_bytes < 2 * BLOCK_BYTES or _HEADER_BYTES + cipher_bytes != stored.size_bytes:
        return None
    both = stored.read_at(stored.size_bytes - 2 * BLOCK_BYTES, 2 * BLOCK_BYTES)
    return both[:BLOCK_BYTES], both[BLOCK_BYTES:]


def _padding(block: bytes) -> int:
    """How many bytes of padding (PKCS#7) end the last block; 0 for none that is valid."""
    count = block[-1]
    is_valid = 0 < count <= BLOCK_BYTES and block.endswith(bytes([count]) * count)
    return count if is_valid else 0


def _looks_like_media(first: bytes, *, is_padded: bool) -> bool:
    """Whether the first block of content begins a recording.

    A wrong key gives noise, which ends in valid padding once in 256 times. So the beginning must
    be known, and where it is known by one byte only, the padding must be valid as well.
    """
    if first[4:8] in _BOXES or first.startswith(_STARTS):
        return True
    return is_padded and first.startswith(_TS_START)
