"""The signature that an Agent puts into its recordings.

What is signed is a line of text about the file's structure: when it was made, how long it is, the
Agent's name, the number and the sizes of its fragments. The pictures are not in it: others of
exactly the same size would go unnoticed.

Source: Kerberos Agent `machinery/src/video/mp4.go` (MP4.Close) and `encryption/main.go`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

from vault_ml.errors import ConfigError, UndecodableRecording
from vault_ml.video.boxes import Box, ReadAt, boxes_between, may_be_mp4
from vault_ml.video.limits import DecodeLimits, Refused, error_for

COVERAGE = (
    "The signature covers when the recording was made, its length, the Agent's name, and the "
    "number and sizes of its fragments. It does not cover the pictures themselves: keep the "
    "sha256 of the file to prove those."
)
_BOX = uuid.UUID("6b0c1f8e-3d2a-4f5b-9c7d-8f1e2b3c4d5e").bytes
_LONGEST_NAME = 1024
_LONGEST_SIGNATURE = 4096  # a key of 32768 bits
# Seconds from 1904, where QuickTime's clock begins, to 1970.
_EPOCH = 2_082_844_800


@dataclass(frozen=True, slots=True)
class SignedParts:
    """What a signature is about, as it is in the file now.

    Attributes:
        created: seconds since 1904.
        duration: in units of the file's time scale; milliseconds in an Agent's recordings.
        agent: name and version of the Agent.
        segments: bytes of each fragment, tables and pictures together, as the Agent counts.
        tables: bytes of each fragment's tables alone.
        signature: as it stands in the file; None for a file without one.
    """

    created: int
    duration: int
    agent: str
    segments: tuple[int, ...]
    tables: tuple[int, ...]
    signature: bytes | None = field(repr=False)

    @property
    def created_unix(self) -> int:
        """Seconds since 1970."""
        return self.created - _EPOCH

    def is_signed_by(self, key: RSAPublicKey) -> bool:
        """Whether the signature was made with the other half of `key`, about what is here now."""
        return self.signature is not None and any(
            _verifies(key, self.signature, text) for text in self._texts()
        )

    def _texts(self) -> Iterator[str]:
        # Agents count whole segments and call them moof; the name alone would mean the tables.
        for sizes in (self.segments, self.tables):
            parts = (self.created, self.duration, self.agent, len(sizes), *sizes)
            yield "_".join(str(part) for part in parts)


def _verifies(key: RSAPublicKey, signature: bytes, text: str) -> bool:
    try:
        key.verify(signature, text.encode(), PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def load_key(path: Path) -> RSAPublicKey:
    """The public key in a PEM file, or of the certificate in it.

    Raises:
        ConfigError: there is none.
    """
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    try:
        is_certificate = b"BEGIN CERTIFICATE" in pem
        key = (
            load_pem_x509_certificate(pem).public_key()
            if is_certificate
            else load_pem_public_key(pem)
        )
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(
            f"{path} is not a public key in PEM form; it begins with -----BEGIN PUBLIC KEY-----"
        ) from None
    if not isinstance(key, RSAPublicKey):
        raise ConfigError(f"{path} is not an RSA key, and Agents sign with RSA")
    return key


def read_signed_parts(read_at: ReadAt, size_bytes: int) -> SignedParts:
    """Read from a recording what its signature is about.

    Args:
        read_at: gives up to `size` bytes from `offset`, fewer at the end of the file.
        size_bytes: length of the file.

    Raises:
        UndecodableRecording: it is no MP4, or has no index.
        RecordingTooLarge: it has more boxes than a recording has.
    """
    if not may_be_mp4(read_at(0, 12)):
        raise UndecodableRecording("This is not an MP4, and only MP4 recordings are signed.")
    limits = DecodeLimits()
    try:
        boxes = list(boxes_between(read_at, 0, size_bytes, limits))
        index = next((box for box in boxes if box.kind == b"moov"), None)
        if index is None:
            raise UndecodableRecording("This MP4 has no index (moov), so nothing can be checked.")
        inside = _Inside(read_at)
        moov = inside.boxes(index)
        created, duration = inside.header(moov)
        return SignedParts(
            created=created,
            duration=duration,
            agent=inside.name(moov),
            segments=tuple(_segments(boxes)),
            tables=tuple(box.end - box.at for box in boxes if box.kind == b"moof"),
            signature=inside.signature(moov),
        )
    except Refused as refused:
        raise error_for(refused, limits) from None


def _segments(boxes: list[Box]) -> Iterator[int]:
    """The size of each media segment: an `styp` where there is one, a `moof`, its `mdat`s."""
    start = end = None
    for number, box in enumerate(boxes):
        if box.kind == b"moof":
            if start is not None and end is not None:
                yield end - start
            before = boxes[number - 1] if number else box
            start, end = (before.at if before.kind == b"styp" else box.at), box.end
        elif box.kind == b"mdat" and end == box.at:
            end = box.end
    if start is not None and end is not None:
        yield end - start


@dataclass(frozen=True, slots=True)
class _Inside:
    """Reads inside the index; whatever is missing there makes the file unfit to be checked."""

    read_at: ReadAt

    def boxes(self, parent: Box) -> list[Box]:
        return list(boxes_between(self.read_at, parent.body_at, parent.end))

    def header(self, moov: list[Box]) -> tuple[int, int]:
        """Creation time and duration of `mvhd`, whose numbers have 4 or 8 bytes."""
        body = self._body(self._one(moov, b"mvhd"), 32)
        wide = 8 if body[:1] == b"\x01" else 4
        times = body[4 : 4 + 2 * wide]
        duration = body[4 + 2 * wide + 4 : 4 + 3 * wide + 4]
        if len(duration) < wide:
            raise UndecodableRecording("The index (mvhd) of this MP4 is damaged.")
        return int.from_bytes(times[:wide], "big"), int.from_bytes(duration, "big")

    def name(self, moov: list[Box]) -> str:
        """The handler's name of the first track."""
        media = self._one(self.boxes(self._one(moov, b"trak")), b"mdia")
        body = self._body(self._one(self.boxes(media), b"hdlr"), 24 + _LONGEST_NAME)
        return body[24:].partition(b"\0")[0].decode("utf-8", "replace")

    def signature(self, moov: list[Box]) -> bytes | None:
        for box in moov:
            if box.kind == b"uuid" and box.end - box.body_at > len(_BOX):
                body = self._body(box, len(_BOX) + _LONGEST_SIGNATURE)
                if body.startswith(_BOX):
                    return body[len(_BOX) :]
        return None

    def _one(self, boxes: list[Box], kind: bytes) -> Box:
        for box in boxes:
            if box.kind == kind:
                return box
        raise UndecodableRecording(f"The index of this MP4 has no {kind.decode()}.")

    def _body(self, box: Box, most: int) -> bytes:
        return self.read_at(box.body_at, min(box.end - box.body_at, most))
