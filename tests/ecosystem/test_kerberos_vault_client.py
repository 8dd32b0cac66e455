"""The ecosystem's own clients against the embedded Vault.

`uugai-python-kerberos-vault` pins its dependencies to old versions, so it is installed without
them (`pip install --no-deps`); it uses `requests` only. The Agent's uploads are written out here
header by header, since the Agent is not a library.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from vault_ml.demo.vault_server import EmbeddedVault
from vault_ml.vault.client import VaultClient

ACCESS, SECRET = "xxx!@#$%12345", "xxx!@#$%67890"
KEY = "youruser/1630567591_6-967003_highway4_200-200-400-400_24_769.mp4"
BYTES = random.Random(2).randbytes(1_500_000)


@pytest.fixture(scope="module")
def kerberos_vault() -> ModuleType:
    name = "uugai_python_kerberos_vault.KerberosVault"
    if os.environ.get("REQUIRE_ECOSYSTEM") == "1":
        return importlib.import_module(name)
    pytest.importorskip("requests")
    module: ModuleType = pytest.importorskip(
        name, reason="uugai-python-kerberos-vault is not installed (pip install --no-deps)"
    )
    return module


def agents_headers(**extra: str) -> dict[str, str]:
    """What the Agent sends with POST /storage, in its spelling and order."""
    return {
        "Content-Type": "video/mp4",
        "X-Kerberos-Storage-CloudKey": "ABCDEFGHI!@#$%12345",
        "X-Kerberos-Storage-AccessKey": ACCESS,
        "X-Kerberos-Storage-SecretAccessKey": SECRET,
        "X-Kerberos-Storage-Provider": "storj",
        "X-Kerberos-Storage-FileName": KEY,
        "X-Kerberos-Storage-Device": "Bfuk14xm40eMSxwEEyrd908yzmDIwKp5",
        "X-Kerberos-Storage-Capture": "IPCamera",
        "X-Kerberos-Storage-Directory": "youruser",
        **extra,
    }


@pytest.mark.parametrize("mount", ["/api", ""])
@pytest.mark.parametrize("compresses", [False, True], ids=["plain", "gzip"])
def test_the_ecosystems_client_downloads_every_byte(
    tmp_path: Path, kerberos_vault: ModuleType, mount: str, compresses: bool
) -> None:
    saved = tmp_path / "recording.mp4"
    with EmbeddedVault(
        tmp_path / "vault", ACCESS, SECRET, provider="storj", compresses_blobs=compresses
    ) as vault:
        vault.put(KEY, BYTES)
        event = json.loads(vault.event(KEY))
        client: Any = kerberos_vault.KerberosVault(vault.url + mount, ACCESS, SECRET)
        answer = client.retrieve_media(event, media_type="video", media_savepath=str(saved))
    assert answer.status_code == 200
    assert hashlib.sha256(saved.read_bytes()).digest() == hashlib.sha256(BYTES).digest()


def test_the_ecosystems_client_is_refused_as_by_the_real_one(
    tmp_path: Path, kerberos_vault: ModuleType
) -> None:
    with EmbeddedVault(tmp_path / "vault", ACCESS, SECRET) as vault:
        vault.put(KEY, BYTES)
        event = json.loads(vault.event(KEY))
        client: Any = kerberos_vault.KerberosVault(vault.url + "/api", ACCESS, "wrong")
        answer = client.retrieve_media(event, media_type="video", media_savepath="/dev/null")
    # It returns an exception instead of raising it; that is how it says no.
    assert isinstance(answer, Exception)


@pytest.mark.parametrize("mount", ["/api", ""])
def test_an_agents_upload_is_stored_announced_and_fetched(tmp_path: Path, mount: str) -> None:
    events: list[bytes] = []
    newer = {
        "X-Kerberos-Storage-Fps": "12.5",
        "X-Kerberos-Storage-Duration": "20000",
        "X-Kerberos-Storage-Timestamp": "1630567591967",
    }
    with EmbeddedVault(
        tmp_path / "vault", ACCESS, SECRET, provider="storj", on_event=events.append
    ) as vault:
        with httpx.Client(base_url=vault.url + mount, trust_env=False) as agent:
            keys = {name: agents_headers()[name] for name in agents_headers() if "Key" in name}
            assert agent.post("/ping", headers=keys).status_code == 200
            assert agent.head("/storage", headers=agents_headers()).status_code == 200
            answer = agent.post("/storage", headers=agents_headers(**newer), content=BYTES)
            assert answer.status_code == 200
        (body,) = events
        event = json.loads(body)
        assert event["payload"]["metadata"]["duration"] == "20000"
        assert event["payload"]["metadata"]["fps"] == "12.5"
        with (
            VaultClient(vault.url, ACCESS, SECRET) as client,
            client.fetch(event["payload"]["key"], event["source"]) as recording,
        ):
            assert recording.size_bytes == event["payload"]["fileSize"] == len(BYTES)
            assert recording.sha256 == hashlib.sha256(BYTES).hexdigest()


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        pytest.param({"X-Kerberos-Storage-FileName": ""}, 400, id="no file name"),
        pytest.param({"X-Kerberos-Storage-AccessKey": ""}, 400, id="no access key"),
        pytest.param({"X-Kerberos-Storage-SecretAccessKey": "wrong"}, 401, id="wrong key"),
        pytest.param({"X-Kerberos-Storage-Provider": "minio"}, 401, id="foreign provider"),
    ],
)
def test_an_agents_mistakes_are_refused_and_nothing_is_stored(
    tmp_path: Path, changed: dict[str, str], status: int
) -> None:
    with EmbeddedVault(tmp_path / "vault", ACCESS, SECRET, provider="storj") as vault:
        with httpx.Client(base_url=vault.url, trust_env=False) as agent:
            answer = agent.post("/api/storage", headers=agents_headers(**changed), content=b"x")
        assert answer.status_code == status
        assert vault.keys() == ()
