"""Recordings encrypted as an Agent does it."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC

from vault_ml.vault.encrypted import derive


def encrypted(content: bytes, passphrase: str, *, salt: bytes = b"saltsalt") -> bytes:
    """`content` as `openssl aes-256-cbc -md md5` writes it; a test holds this against OpenSSL."""
    key, iv = derive(passphrase.encode(), salt)
    padding = 16 - len(content) % 16
    encryptor = Cipher(AES256(key), CBC(iv)).encryptor()
    blocks = encryptor.update(content + bytes([padding]) * padding) + encryptor.finalize()
    return b"Salted__" + salt + blocks
