"""Who issues tokens (OAUTHBEARER) and certificates (TLS, mutual TLS) for the tests' Kafka."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

CLIENT_ID, CLIENT_SECRET = "yourusername", "client-secret-canary"
LIFETIME_S = 20  # a test sees a token being replaced


class TokenIssuer:
    """A key, the tokens signed with it (RFC 7519, RS256), and the endpoint of RFC 6749 4.4."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        self.issued = 0

    def keys(self) -> dict[str, Any]:
        """What a verifier needs (RFC 7517)."""
        numbers = self._key.public_key().public_numbers()
        key = {
            "kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256",
            "n": _number(numbers.n), "e": _number(numbers.e),
        }  # fmt: skip
        return {"keys": [key]}

    def token(self) -> str:
        now = int(time.time())
        claims = {
            "sub": CLIENT_ID, "iss": "tests", "iat": now, "exp": now + LIFETIME_S,
            "scope": "queue",
        }  # fmt: skip
        head = {"alg": "RS256", "typ": "JWT", "kid": "1"}
        signed = ".".join(_text(json.dumps(part).encode()) for part in (head, claims))
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_text(signature)}"

    @contextmanager
    def endpoint(self) -> Iterator[str]:
        """Serve tokens for client credentials; yields the URL."""
        issuer = self
        basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                words = parse_qs(self.rfile.read(length).decode())
                is_known = self.headers.get("Authorization") == f"Basic {basic}"
                if words.get("grant_type") != ["client_credentials"] or not is_known:
                    self._answer(401, {"error": "invalid_client"})
                    return
                issuer.issued += 1
                self._answer(
                    200,
                    {
                        "access_token": issuer.token(),
                        "token_type": "Bearer",
                        "expires_in": LIFETIME_S,
                    },
                )

            def _answer(self, status: int, document: object) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/token"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def make_certificate(file: Path, name: str, *, is_server: bool = False) -> bytes:
    """Write a certificate, signed by itself, and its key; returns the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    places: list[x509.GeneralName] = [x509.DNSName(name)]
    if is_server:
        places.append(x509.IPAddress(IPv4Address("127.0.0.1")))
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(places), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(certificate + secret)
    return certificate


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(number: int) -> str:
    return _text(number.to_bytes((number.bit_length() + 7) // 8, "big"))
