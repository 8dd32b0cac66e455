"""The Agent's upload sequence against the embedded Vault, request by request.

The Agent is not a library, so what it sends is written out here: a HEAD with all headers to ask
whether it may, then tus in pieces of 8 MiB, or one POST where the Vault knows no tus.
"""

from __future__ import annotations

import base64
import contextlib
import json
import random
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest

from vault_ml.demo.vault_server import EmbeddedVault

ACCESS, SECRET = "xxx!@#$%12345", "xxx!@#$%67890"
KEY = "youruser/1630567591_3-967_front door Ä_10-20-30-40_24_20000.mp4"
BYTES = random.Random(5).randbytes(300_001)
PIECE = 100_000
TOLD = {
    "filename": KEY,
    "device": "Bfuk14xm40eMSxwEEyrd908yzmDIwKp5",
    "directory": "youruser",
    "provider": "storj",
    "capture": "IPCamera",
    "cloudkey": "ABCDEFGHI!@#$%12345",
    "fps": "12.5",
    "duration": "20000",
    "timestamp": "1630567591967",
}
KEYS = {
    "X-Kerberos-Storage-AccessKey": ACCESS,
    "X-Kerberos-Storage-SecretAccessKey": SECRET,
}
ALL_HEADERS = KEYS | {
    "Content-Type": "video/mp4",
    "X-Kerberos-Storage-CloudKey": TOLD["cloudkey"],
    "X-Kerberos-Storage-Provider": "storj",
    "X-Kerberos-Storage-FileName": "youruser/1.mp4",
    "X-Kerberos-Storage-Device": TOLD["device"],
    "X-Kerberos-Storage-Capture": "IPCamera",
    "X-Kerberos-Storage-Directory": "youruser",
    "X-Kerberos-Storage-Fps": "12.5",
    "X-Kerberos-Storage-Duration": "20000",
    "X-Kerberos-Storage-Timestamp": "1630567591967",
}
TUS = {"Tus-Resumable": "1.0.0"}


def metadata(told: dict[str, str] = TOLD) -> str:
    pairs = (f"{name} {base64.b64encode(text.encode()).decode()}" for name, text in told.items())
    return ",".join(pairs)


def creation(
    size: int = len(BYTES), changed: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    headers = {**KEYS, **TUS, "Upload-Length": str(size), "Upload-Metadata": metadata()}
    return {name: text for name, text in {**headers, **changed}.items() if text}


def piece(offset: int) -> dict[str, str]:
    kind = "application/offset+octet-stream"
    return {**TUS, "Content-Type": kind, "Upload-Offset": str(offset)}


@pytest.fixture
def events() -> list[bytes]:
    return []


@pytest.fixture
def vault(tmp_path: Path, events: list[bytes]) -> Iterator[EmbeddedVault]:
    with EmbeddedVault(
        tmp_path, ACCESS, SECRET, provider="storj", on_event=events.append
    ) as embedded:
        yield embedded


@pytest.fixture(params=["/api", ""])
def agent(vault: EmbeddedVault, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=vault.url + request.param, trust_env=False) as client:
        yield client


def test_an_upload_in_pieces_is_stored_and_announced(
    vault: EmbeddedVault, agent: httpx.Client, events: list[bytes]
) -> None:
    assert agent.head("/storage", headers=ALL_HEADERS).status_code == 200
    created = agent.post("/storage/tus/", headers=creation())
    assert (created.status_code, created.headers["tus-resumable"]) == (201, "1.0.0")
    where = created.headers["location"]
    for offset in range(0, len(BYTES), PIECE):
        asked = agent.head(where, headers=TUS)
        assert asked.status_code in {200, 204}
        assert asked.headers["upload-offset"] == str(offset)
        assert asked.headers["upload-length"] == str(len(BYTES))
        assert not vault.has(KEY)
        content = BYTES[offset : offset + PIECE]
        sent = agent.patch(where, headers=piece(offset), content=content)
        assert sent.status_code == 204
        assert sent.headers["upload-offset"] == str(offset + len(content))
    assert vault.get(KEY) == BYTES
    (event,) = events
    payload = json.loads(event)["payload"]
    assert (payload["key"], payload["fileSize"]) == (KEY, len(BYTES))
    assert payload["metadata"]["duration"] == "20000"
    assert payload["metadata"]["productid"] == TOLD["device"]
    assert agent.head(where, headers=TUS).status_code == 404, "it is over"


def test_an_upload_that_breaks_off_goes_on_where_it_stopped(
    vault: EmbeddedVault, events: list[bytes]
) -> None:
    with httpx.Client(base_url=vault.url, trust_env=False) as agent:
        where = agent.post("/storage/tus/", headers=creation()).headers["location"]
        path = httpx.URL(where).path
        port = int(vault.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as line:
            told = "".join(f"{name}: {text}\r\n" for name, text in piece(0).items())
            head = f"PATCH {path} HTTP/1.1\r\nHost: x\r\n{told}Content-Length: {len(BYTES)}\r\n\r\n"
            line.sendall(head.encode() + BYTES[:PIECE])
            while agent.head(where, headers=TUS).headers["upload-offset"] != str(PIECE):
                pass
        offset = -1
        for _ in range(1000):  # the server notices the hang-up a moment later
            offset = int(agent.head(where, headers=TUS).headers["upload-offset"])
            sent = agent.patch(where, headers=piece(offset), content=BYTES[offset:])
            if sent.status_code == 204:
                break
            assert sent.status_code == 409
        assert offset == PIECE
    assert vault.get(KEY) == BYTES
    assert len(events) == 1


def test_an_upload_can_be_given_up(vault: EmbeddedVault, agent: httpx.Client) -> None:
    where = agent.post("/storage/tus/", headers=creation()).headers["location"]
    agent.patch(where, headers=piece(0), content=BYTES[:100])
    assert agent.delete(where, headers=TUS).status_code == 204
    assert agent.head(where, headers=TUS).status_code == 404
    assert vault.keys() == ()
    assert list((vault._files._folder / "uploads").iterdir()) == []


def test_an_empty_upload_is_whole_at_once(vault: EmbeddedVault, agent: httpx.Client) -> None:
    assert agent.post("/storage/tus/", headers=creation(0)).status_code == 201
    assert vault.get(KEY) == b""


def test_the_server_says_what_it_can(agent: httpx.Client) -> None:
    told = agent.request("OPTIONS", "/storage/tus/")
    assert told.status_code == 204
    assert told.headers["tus-version"] == "1.0.0"
    assert "creation" in told.headers["tus-extension"]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        pytest.param({"Tus-Resumable": ""}, 412, id="no version"),
        pytest.param({"Tus-Resumable": "0.2.2"}, 412, id="old version"),
        pytest.param({"X-Kerberos-Storage-SecretAccessKey": "wrong"}, 401, id="wrong key"),
        pytest.param({"X-Kerberos-Storage-AccessKey": ""}, 400, id="no key"),
        pytest.param({"X-Kerberos-Storage-Provider": "other"}, 401, id="foreign provider"),
        pytest.param({"Upload-Length": ""}, 400, id="no length"),
        pytest.param({"Upload-Length": "-1"}, 400, id="negative length"),
        pytest.param({"Upload-Length": "99999999999999"}, 413, id="too large"),
        pytest.param({"Upload-Metadata": ""}, 400, id="no metadata"),
        pytest.param({"Upload-Metadata": "filename !!!"}, 400, id="no base64"),
        pytest.param({"Upload-Metadata": "device Y2Ft"}, 400, id="no file name"),
    ],
)
def test_a_wrong_beginning_is_refused(
    agent: httpx.Client, changed: dict[str, str], status: int
) -> None:
    assert agent.post("/storage/tus/", headers=creation(changed=changed)).status_code == status


@pytest.mark.parametrize(
    ("changed", "content", "status"),
    [
        pytest.param({"Upload-Offset": "5"}, b"x", 409, id="wrong offset"),
        pytest.param({"Upload-Offset": "x"}, b"x", 400, id="no offset"),
        pytest.param({"Content-Type": "video/mp4"}, b"x", 415, id="wrong type"),
        pytest.param({}, BYTES + b"x", 413, id="more than announced"),
        pytest.param({"Tus-Resumable": "0.1"}, b"x", 412, id="wrong version"),
    ],
)
def test_a_wrong_piece_is_refused(
    vault: EmbeddedVault, changed: dict[str, str], content: bytes, status: int
) -> None:
    with httpx.Client(base_url=vault.url, trust_env=False) as agent:
        where = agent.post("/storage/tus/", headers=creation()).headers["location"]
        answer = agent.patch(where, headers=piece(0) | changed, content=content)
        assert answer.status_code == status
        assert agent.patch(where + "x", headers=piece(0), content=b"x").status_code == 404
    assert vault.keys() == ()


def test_an_event_that_cannot_be_sent_leaves_the_last_piece_to_send_again(tmp_path: Path) -> None:
    fails = [True]
    sent: list[bytes] = []

    def broken_once(event: bytes) -> None:
        if fails:
            fails.clear()
            raise ConnectionError("broker away")
        sent.append(event)

    with (
        EmbeddedVault(tmp_path, ACCESS, SECRET, provider="storj", on_event=broken_once) as vault,
        httpx.Client(base_url=vault.url, trust_env=False) as agent,
    ):
        where = agent.post("/storage/tus/", headers=creation()).headers["location"]
        agent.patch(where, headers=piece(0), content=BYTES[:PIECE])
        rest = BYTES[PIECE:]
        assert agent.patch(where, headers=piece(PIECE), content=rest).status_code == 500
        assert agent.head(where, headers=TUS).headers["upload-offset"] == str(PIECE)
        assert agent.patch(where, headers=piece(PIECE), content=rest).status_code == 204
        assert vault.get(KEY) == BYTES
    assert len(sent) == 1


def test_an_older_vault_sends_the_agent_back_to_one_post(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        vault = stack.enter_context(
            EmbeddedVault(tmp_path, ACCESS, SECRET, provider="storj", takes_tus=False)
        )
        agent = stack.enter_context(httpx.Client(base_url=vault.url + "/api", trust_env=False))
        assert agent.post("/storage/tus/", headers=creation()).status_code in {404, 405, 501}
        assert agent.post("/storage", headers=ALL_HEADERS, content=BYTES).status_code == 200
        assert vault.get("youruser/1.mp4") == BYTES
