"""The Agent's signature: checked as it is made, and never more claimed than it covers."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from typer.testing import CliRunner

from conftest import shared_file
from encrypted_files import encrypted
from vault_ml.cli import app
from vault_ml.errors import ConfigError, UndecodableRecording, VaultMLError
from vault_ml.video.signature import COVERAGE, load_key, read_signed_parts

UUID = bytes.fromhex("6b0c1f8e3d2a4f5b9c7d8f1e2b3c4d5e")
CREATED, DURATION, AGENT = 3_715_412_391, 20_000, "agent v3.5.0"


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def mvhd(*, wide: bool = False) -> bytes:
    numbers = (
        struct.pack(">QQIQ", CREATED, CREATED, 1000, DURATION)
        if wide
        else struct.pack(">IIII", CREATED, CREATED, 1000, DURATION)
    )
    return box(b"mvhd", bytes([wide, 0, 0, 0]), numbers, bytes(80))


def trak(name: str = AGENT) -> bytes:
    hdlr = box(b"hdlr", bytes(8), b"vide", bytes(12), name.encode(), b"\0")
    return box(b"trak", box(b"tkhd", bytes(84)), box(b"mdia", hdlr))


def segments(*pictures: int, styp: bool = True) -> list[bytes]:
    """Media segments whose pictures have so many bytes."""
    head = box(b"styp", b"msdhmsdhmsix") if styp else b""
    return [
        head + box(b"moof", bytes(100 + 12 * number)) + box(b"mdat", b"p" * size)
        for number, size in enumerate(pictures)
    ]


def recording(signature: bytes | None, media: list[bytes], **changed: Any) -> bytes:
    signed = b"" if signature is None else box(b"uuid", UUID, signature)
    other = box(b"uuid", bytes(16), b"somebody else's")
    moov = box(
        b"moov",
        mvhd(wide=changed.get("wide", False)),
        trak(changed.get("name", AGENT)),
        other,
        signed,
    )
    free = box(b"free", bytes(changed.get("free", 64)))
    return box(b"ftyp", b"isom") + moov + free + b"".join(media)


@pytest.fixture(scope="module")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def key_file(private_key: rsa.RSAPrivateKey, tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.write_bytes(
        private_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return path


def sign(key: rsa.RSAPrivateKey, media: list[bytes]) -> bytes:
    text = "_".join(str(part) for part in (CREATED, DURATION, AGENT, len(media), *map(len, media)))
    return key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())


def is_good(content: bytes, key: rsa.RSAPrivateKey) -> bool:
    parts = read_signed_parts(lambda at, size: content[at : at + size], len(content))
    return parts.is_signed_by(key.public_key())


@pytest.mark.parametrize("styp", [True, False])
@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("pictures", [(), (1000,), (1000, 2000, 7)])
def test_an_agents_signature_is_good(
    private_key: rsa.RSAPrivateKey, pictures: tuple[int, ...], wide: bool, styp: bool
) -> None:
    media = segments(*pictures, styp=styp)
    content = recording(sign(private_key, media), media, wide=wide)
    assert is_good(content, private_key)
    parts = read_signed_parts(lambda at, size: content[at : at + size], len(content))
    assert parts.segments == tuple(map(len, media))
    assert (parts.agent, parts.duration) == (AGENT, DURATION)
    assert parts.created_unix == 1_632_567_591


def test_sizes_of_the_tables_alone_are_understood_too(private_key: rsa.RSAPrivateKey) -> None:
    media = segments(1000, 2000)
    text = f"{CREATED}_{DURATION}_{AGENT}_2_108_120"
    signature = private_key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert is_good(recording(signature, media), private_key)


def test_what_the_signature_covers_cannot_be_changed(private_key: rsa.RSAPrivateKey) -> None:
    media = segments(1000, 2000, 500)
    signature = sign(private_key, media)
    assert not is_good(recording(signature, media[:2]), private_key)
    assert not is_good(recording(signature, [media[1], media[0], media[2]]), private_key)
    assert not is_good(recording(signature, segments(1000, 2000, 501)), private_key)
    assert not is_good(recording(signature, media, name="agent v3.5.1"), private_key)
    assert not is_good(recording(signature[:-1] + b"\0", media), private_key)
    assert not is_good(recording(b"", media), private_key)
    assert not is_good(recording(None, media), private_key)
    assert not is_good(recording(signature, media), rsa.generate_private_key(65537, 2048))


def test_what_the_signature_does_not_cover_is_said(private_key: rsa.RSAPrivateKey) -> None:
    """Other pictures of the same size go unnoticed; so the sentence must say so."""
    media = segments(1000, 2000)
    forged = [segment.replace(b"pp", b"qq") for segment in media]
    assert is_good(recording(sign(private_key, media), forged), private_key)
    assert "does not cover the pictures" in COVERAGE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no MP4 at all" * 10,
        box(b"ftyp", b"isom"),
        box(b"ftyp", b"isom") + box(b"moov"),
        box(b"ftyp", b"isom") + box(b"moov", mvhd()),
        box(b"ftyp", b"isom") + box(b"moov", box(b"mvhd", b"\0" * 10), trak()),
        box(b"ftyp", b"isom") + box(b"moov", mvhd(), box(b"trak")),
        box(b"ftyp", b"isom") + box(b"moov", mvhd(), box(b"trak", box(b"mdia"))),
        box(b"ftyp", b"isom") + struct.pack(">I4s", 2**31, b"moov"),
    ],
)
def test_what_cannot_be_checked_is_a_sentence(content: bytes) -> None:
    with pytest.raises(UndecodableRecording):
        read_signed_parts(lambda at, size: content[at : at + size], len(content))


def test_endless_boxes_end() -> None:
    content = box(b"ftyp", b"isom") + box(b"free") * 30_000 + box(b"moov", mvhd(), trak())
    with pytest.raises(VaultMLError):
        read_signed_parts(lambda at, size: content[at : at + size], len(content))


def test_keys_may_be_certificates(private_key: rsa.RSAPrivateKey, tmp_path: Path) -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "agent")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name)
        .public_key(private_key.public_key()).serial_number(1)
        .not_valid_before(now).not_valid_after(now + timedelta(days=1))
        .sign(private_key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path / "agent.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    assert load_key(path).public_numbers() == private_key.public_key().public_numbers()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_what_is_no_key_says_so(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not a public key"):
        load_key(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_key(tmp_path / "missing.pem")


def test_a_key_of_another_kind_says_so(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    path.write_bytes(
        key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    with pytest.raises(ConfigError, match="not an RSA key"):
        load_key(path)


# --- the command ---------------------------------------------------------------------------------


def run(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["verify", *arguments], env=env)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_the_command_tells_good_from_bad(
    private_key: rsa.RSAPrivateKey, key_file: Path, tmp_path: Path
) -> None:
    media = segments(1000, 2000)
    path = tmp_path / "recording.mp4"
    path.write_bytes(recording(sign(private_key, media), media))
    code, text = run(str(path), "--key", str(key_file))
    assert code == 0
    assert "good:" in text
    assert "does not cover the pictures" in text
    code, text = run(str(path), "--json")
    assert (code, json.loads(text)["signature"]) == (0, "not checked")
    path.write_bytes(recording(sign(private_key, media), media[:1]))
    code, text = run(str(path), "--key", str(key_file))
    assert code == 1
    assert "BAD" in text


def test_the_command_decrypts(
    private_key: rsa.RSAPrivateKey, key_file: Path, tmp_path: Path
) -> None:
    media = segments(1000, 2000)
    plain = recording(sign(private_key, media), media)
    path = tmp_path / "recording.mp4"
    path.write_bytes(encrypted(plain, "passphrase"))
    keys = {"RECORDING_KEYS": "other,passphrase"}
    code, text = run(str(path), "--key", str(key_file), "--json", env=keys)
    document = json.loads(text)
    assert (code, document["signature"], document["is_encrypted"]) == (0, "good", True)
    with pytest.raises(VaultMLError, match="RECORDING_KEYS"):
        run(str(path), env={"RECORDING_KEYS": ""})
    with pytest.raises(ConfigError, match="RECORDING_KEYS: looks like JSON"):
        run(str(path), env={"RECORDING_KEYS": "["})


def test_a_recording_of_another_make_is_not_signed() -> None:
    path = shared_file("video/one_person_5s_768x432_10fps.mp4")
    code, text = run(str(path))
    assert code == 0
    assert "missing: the Agent did not sign it" in text
