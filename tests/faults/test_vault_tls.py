"""TLS of the Vault and its storages: a company's own authority, certificates of our own."""

from __future__ import annotations

import contextlib
import http.server
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vault_ml.errors import ConfigError, VaultUnavailable
from vault_ml.vault.client import VaultClient, VaultOptions
from vault_ml.vault.transport import TlsOptions

KEY = "youruser/1630567591_6-967003_highway4_200-200-400-400_24_769.mp4"
QUICK = VaultOptions(api_prefix="", connect_timeout_s=3, read_timeout_s=3, call_timeout_s=5)


@dataclass(frozen=True)
class Authority:
    """A certificate authority with what it has issued, in PEM files."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "ca.pem"

    def issue(self, name: str, *hosts: str) -> tuple[Path, Path]:
        """A certificate for `hosts` and its key."""
        issuer = x509.load_pem_x509_certificate(self.file.read_bytes())
        signer = serialization.load_pem_private_key((self.folder / "ca.key").read_bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [
            x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
            for host in hosts
        ]
        builder = _builder(name, issuer.subject, key)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return _write(self.folder, name, builder.sign(signer, hashes.SHA256()), key)


def _builder(
    name: str, issuer: x509.Name | None, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )


def _write(
    folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> tuple[Path, Path]:
    pem, secret = folder / f"{name}.pem", folder / f"{name}.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, secret


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("ca")
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder("ca", None, key).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    _write(folder, "ca", builder.sign(key, hashes.SHA256()), key)
    return Authority(folder)


class _Vault(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...

    def do_POST(self) -> None:
        self._say(b'{"data": "pong"}')

    def do_GET(self) -> None:
        if self.path == "/storage":
            assert isinstance(self.server, _Server)
            port = self.server.server_port
            self._say(json.dumps({"data": f"https://minio.internal:{port}/x?s=1"}).encode())
        else:
            self._say(b"recording" if self.path.startswith("/x") else b"blob")

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that hangs up is what some of these tests are about."""


@contextmanager
def serving(authority: Authority, *, asks_for_certificate: bool = False) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pem, key = authority.issue("server", "localhost", "minio.internal", "127.0.0.1")
    context.load_cert_chain(pem, key)
    if asks_for_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.file)
    server = _Server(("127.0.0.1", 0), _Vault)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"https://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ping(url: str, tls: TlsOptions) -> None:
    with VaultClient(url, "access", "secret", replace(QUICK, tls=tls)) as client:
        client.ping()


def test_a_company_authority_is_trusted_when_it_is_named(authority: Authority) -> None:
    with serving(authority) as url:
        with pytest.raises(VaultUnavailable, match="certificate"):
            ping(url, TlsOptions())
        ping(url, TlsOptions(ca_file=authority.file))
        ping(url.replace("localhost", "127.0.0.1"), TlsOptions(ca_file=authority.file))


def test_a_server_that_asks_for_our_certificate_gets_it(authority: Authority) -> None:
    pem, key = authority.issue("worker")
    with serving(authority, asks_for_certificate=True) as url:
        with pytest.raises(VaultUnavailable):
            ping(url, TlsOptions(ca_file=authority.file))
        ping(url, TlsOptions(authority.file, pem, key))
        both = authority.folder / "both.pem"
        both.write_bytes(pem.read_bytes() + key.read_bytes())
        ping(url, TlsOptions(authority.file, both))


def test_the_name_is_what_is_verified_though_the_address_is_what_is_called(
    authority: Authority,
) -> None:
    tls = TlsOptions(ca_file=authority.file)
    options = replace(QUICK, tls=tls, resolver=lambda host, port: ["127.0.0.1"])
    with (
        serving(authority) as url,
        VaultClient(url, "access", "secret", options) as client,
        client.fetch(KEY, "s3") as recording,
    ):
        assert recording.route == "signed_url"
        assert recording.size_bytes == len(b"recording")


def test_files_that_cannot_be_used_name_their_variable(
    authority: Authority, tmp_path: Path
) -> None:
    nonsense, missing = tmp_path / "nonsense.pem", tmp_path / "missing.pem"
    nonsense.write_text("nonsense")
    pem, _ = authority.issue("one")
    _, other_key = authority.issue("other")
    for tls, variable in (
        (TlsOptions(ca_file=missing), "VAULT_CA_FILE"),
        (TlsOptions(ca_file=nonsense), "VAULT_CA_FILE"),
        (TlsOptions(client_cert=missing), "VAULT_CLIENT_CERT"),
        (TlsOptions(client_cert=pem), "VAULT_CLIENT_KEY"),
        (TlsOptions(client_cert=pem, client_key=other_key), "VAULT_CLIENT_KEY"),
    ):
        with pytest.raises(ConfigError, match=variable), contextlib.ExitStack() as stack:
            stack.enter_context(VaultClient("https://v.example", "a", "s", replace(QUICK, tls=tls)))
