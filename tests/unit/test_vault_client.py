"""The Vault client against the embedded Vault, over a real socket."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import httpx
import pytest

from open_files import open_files, opened_since
from vault_ml.demo.vault_server import EmbeddedVault
from vault_ml.errors import (
    ConfigError,
    CredentialsRejected,
    MalformedEvent,
    RecordingIncomplete,
    RecordingNotFound,
    RecordingRefused,
    RecordingTooLarge,
    UnavailableError,
    VaultUnavailable,
)
from vault_ml.vault import protocol
from vault_ml.vault.client import VaultClient, VaultOptions

ACCESS, SECRET = "xxx!@#$%12345", "xxx!@#$%67890"
KEY = "youruser/1630567591_6-967003_highway4_200-200-400-400_24_769.mp4"
QUICK = VaultOptions(
    connect_timeout_s=2, read_timeout_s=5, call_timeout_s=10, transfer_timeout_s=10
)
BYTES = random.Random(1).randbytes(300_000)


def wait_until(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[EmbeddedVault]:
    with EmbeddedVault(tmp_path / "vault", ACCESS, SECRET) as embedded:
        yield embedded


@pytest.fixture
def client(vault: EmbeddedVault) -> Iterator[VaultClient]:
    with VaultClient(vault.url, ACCESS, SECRET, QUICK) as client:
        yield client


def read(fd: int) -> bytes:
    with os.fdopen(os.dup(fd), "rb") as file:
        return file.read()


# --- fetch ---------------------------------------------------------------------------------------


def test_a_recording_that_is_not_there_is_not_found(client: VaultClient) -> None:
    with pytest.raises(RecordingNotFound, match=r"127\.0\.0\.1"):
        client.fetch(KEY, "local")


def test_an_empty_recording_is_not_complete_yet(vault: EmbeddedVault, client: VaultClient) -> None:
    vault.put(KEY, b"")
    with pytest.raises(RecordingIncomplete, match="empty so far"):
        client.fetch(KEY, "local")


def test_fetches_every_byte_by_signed_url(vault: EmbeddedVault, client: VaultClient) -> None:
    vault.put(KEY, BYTES)
    with client.fetch(KEY, "local") as recording:
        assert read(recording.fd) == BYTES
        assert recording.size_bytes == recording.fetched_bytes == len(BYTES)
        assert recording.sha256 == hashlib.sha256(BYTES).hexdigest()
        assert recording.route == "signed_url"
    assert [request.path for request in vault.requests] == [
        "/api/ping",
        "/api/storage",
        "/api/storage/signed",
    ]


def test_nothing_of_ours_is_sent_to_the_signed_url(
    vault: EmbeddedVault, client: VaultClient
) -> None:
    vault.put(KEY, BYTES)
    client.fetch(KEY, "local").close()
    names = next(r.header_names for r in vault.requests if r.path.endswith("/signed"))
    assert sorted(names) == ["accept", "accept-encoding", "host", "user-agent"]


@pytest.mark.parametrize("compresses", [False, True], ids=["plain", "gzip"])
def test_a_vault_that_cannot_sign_serves_the_recording_itself(
    tmp_path: Path, compresses: bool
) -> None:
    content = b"frame " * 100_000
    with (
        EmbeddedVault(
            tmp_path / "v", ACCESS, SECRET, signs_urls=False, compresses_blobs=compresses
        ) as vault,
        VaultClient(vault.url, ACCESS, SECRET, QUICK) as client,
    ):
        vault.put(KEY, content)
        with client.fetch(KEY, "local") as recording:
            assert read(recording.fd) == content
            assert recording.route == "blob"
            assert (recording.fetched_bytes < recording.size_bytes) is compresses
        with pytest.raises(RecordingNotFound):
            client.fetch("youruser/other.mp4", "local")


@pytest.mark.parametrize(
    ("mount", "suffix", "root"),
    [
        ("api", "", "/api"),
        ("api", "/api", "/api"),
        ("api", "/api/storage/", "/api"),
        ("root", "", ""),
        ("root", "/storage", ""),
        ("both", "", "/api"),
    ],
)
def test_finds_the_api_wherever_it_is(
    tmp_path: Path, mount: Literal["both", "api", "root"], suffix: str, root: str
) -> None:
    with (
        EmbeddedVault(tmp_path / "v", ACCESS, SECRET, mount=mount) as vault,
        VaultClient(vault.url + suffix, ACCESS, SECRET, QUICK) as client,
    ):
        vault.put(KEY, BYTES)
        client.ping()
        for _ in range(2):
            with client.fetch(KEY, "local") as recording:
                assert read(recording.fd) == BYTES
        pings = [request.path for request in vault.requests if "ping" in request.path]
        assert pings[-1] == f"{root}/ping"
        assert len(pings) <= 2, "the root is looked for once, then remembered"


def test_a_wrong_prefix_is_a_sentence_not_a_success(vault: EmbeddedVault) -> None:
    options = VaultOptions(api_prefix="/wrong")
    with VaultClient(vault.url, ACCESS, SECRET, options) as client:
        with pytest.raises(ConfigError, match=r"no Vault API at 127\.0\.0\.1.*tried /wrong"):
            client.ping()
        with pytest.raises(VaultUnavailable, match="no Vault API"):
            client.fetch(KEY, "local")
        with pytest.raises(VaultUnavailable, match="no Vault API"):
            client.remove(KEY, "local")


def test_the_api_is_looked_for_again_after_the_vault_was_replaced(tmp_path: Path) -> None:
    old = EmbeddedVault(tmp_path / "v", ACCESS, SECRET, mount="root").start()
    port = int(old.url.rpartition(":")[2])
    old.put(KEY, BYTES)
    with VaultClient(old.url, ACCESS, SECRET, QUICK) as client:
        client.fetch(KEY, "local").close()
        old.stop()
        with pytest.raises(VaultUnavailable, match="does not answer"):
            client.fetch(KEY, "local")
        with (
            EmbeddedVault(tmp_path / "v", ACCESS, SECRET, mount="api", port=port),
            client.fetch(KEY, "local") as recording,
        ):
            assert read(recording.fd) == BYTES


def test_survives_an_outage_of_the_same_vault(vault: EmbeddedVault, client: VaultClient) -> None:
    vault.put(KEY, BYTES)
    client.fetch(KEY, "local").close()
    vault.stop()
    for call in (client.ping, lambda: client.fetch(KEY, "local")):
        with pytest.raises(VaultUnavailable, match=r"127\.0\.0\.1:\d+ does not answer"):
            call()
    vault.start()
    client.ping()
    with client.fetch(KEY, "local") as recording:
        assert read(recording.fd) == BYTES


def test_urls_that_expire_at_once_leave_the_way_through_the_vault(tmp_path: Path) -> None:
    with (
        EmbeddedVault(tmp_path / "v", ACCESS, SECRET, signed_url_ttl_s=-1) as vault,
        VaultClient(vault.url, ACCESS, SECRET, QUICK) as client,
    ):
        vault.put(KEY, BYTES)
        with client.fetch(KEY, "local") as recording:
            assert recording.route == "blob"
            assert read(recording.fd) == BYTES
        paths = [request.path for request in vault.requests]
        assert paths.count("/api/storage/signed") == 2, "asked for anew exactly once"


@pytest.mark.parametrize("signs_urls", [True, False], ids=["signed_url", "blob"])
def test_a_recording_above_the_limit_is_too_large(tmp_path: Path, signs_urls: bool) -> None:
    options = VaultOptions(max_bytes=len(BYTES) - 1)
    with (
        EmbeddedVault(tmp_path / "v", ACCESS, SECRET, signs_urls=signs_urls) as vault,
        VaultClient(vault.url, ACCESS, SECRET, options) as client,
    ):
        vault.put(KEY, BYTES)
        with pytest.raises(RecordingTooLarge, match="299999 bytes"):
            client.fetch(KEY, "local")
        vault.put(KEY, BYTES[:-1])
        client.fetch(KEY, "local").close()


def test_a_gzip_bomb_meets_the_limit(tmp_path: Path) -> None:
    options = VaultOptions(max_bytes=1_000_000)
    with (
        EmbeddedVault(
            tmp_path / "v", ACCESS, SECRET, signs_urls=False, compresses_blobs=True
        ) as vault,
        VaultClient(vault.url, ACCESS, SECRET, options) as client,
    ):
        vault.put(KEY, bytes(20_000_000))
        with pytest.raises(RecordingTooLarge):
            client.fetch(KEY, "local")


def test_a_key_may_hold_any_letters_but_no_line_break(
    vault: EmbeddedVault, client: VaultClient
) -> None:
    for key in ("u/Tür 日本.mp4", "../../../etc/passwd", "a" * 4000):
        vault.put(key, BYTES)
        with client.fetch(key, "local") as recording:
            assert read(recording.fd) == BYTES
    with pytest.raises(MalformedEvent, match="control character"):
        client.fetch(f"u/1.mp4\r\n{protocol.SECRET_KEY}: x", "local")
    with pytest.raises(MalformedEvent, match="source"):
        client.fetch(KEY, "")


# --- where the bytes live ------------------------------------------------------------------------


def test_a_fetched_recording_has_no_name_and_leaves_nothing(
    tmp_path: Path, vault: EmbeddedVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    vault.put(KEY, BYTES)
    with VaultClient(vault.url, ACCESS, SECRET, VaultOptions(work_dir=work_dir)) as client:
        for _ in range(2):
            with client.fetch(KEY, "local") as recording:
                assert list(work_dir.iterdir()) == []
                assert os.fstat(recording.fd).st_nlink == 0
                assert read(recording.fd) == BYTES
                fd = recording.fd
            recording.close()
            with pytest.raises(OSError):
                os.fstat(fd)
            # The second time around the file system is one that cannot make nameless files.
            monkeypatch.setattr(os, "O_TMPFILE", os.O_RDONLY)


def test_no_room_for_a_recording_pauses_instead_of_failing_it(
    tmp_path: Path, vault: EmbeddedVault
) -> None:
    vault.put(KEY, BYTES)
    options = VaultOptions(work_dir=tmp_path / "is not there")
    with (
        VaultClient(vault.url, ACCESS, SECRET, options) as client,
        pytest.raises(UnavailableError, match="no room for a recording in") as caught,
    ):
        client.fetch(KEY, "local")
    assert caught.value.retry_after_s is not None


def test_many_threads_share_a_client_and_leak_nothing(tmp_path: Path, vault: EmbeddedVault) -> None:
    contents = {f"u/{i}.mp4": random.Random(i).randbytes(20_000 + i) for i in range(40)}
    for key, content in contents.items():
        vault.put(key, content)

    def fetch(client: VaultClient, key: str) -> str:
        with client.fetch(key, "local") as recording:
            assert read(recording.fd) == contents[key]
            return recording.sha256

    before = open_files()
    with (
        VaultClient(vault.url, ACCESS, SECRET, VaultOptions(work_dir=tmp_path)) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        digests = list(threads.map(partial(fetch, client), contents))
    assert digests == [hashlib.sha256(content).hexdigest() for content in contents.values()]
    assert [r.path for r in vault.requests].count("/api/ping") == 1, "one thread looks for the root"
    # The server's ends of the connections close a moment later.
    wait_until(lambda: not opened_since(before), within_s=30)


# --- credentials ---------------------------------------------------------------------------------


def test_wrong_credentials_are_fatal_at_a_ping_and_an_outage_afterwards(
    vault: EmbeddedVault,
) -> None:
    vault.put(KEY, BYTES)
    with VaultClient(vault.url, ACCESS, "wrong", QUICK) as client:
        with pytest.raises(CredentialsRejected, match="VAULT_SECRET_KEY"):
            client.ping()
        with pytest.raises(VaultUnavailable, match="rejects our credentials now"):
            client.fetch(KEY, "local")
        with pytest.raises(VaultUnavailable, match="rejects our credentials now"):
            client.forward_media(KEY)


def test_good_credentials_and_a_foreign_provider_refuse_the_recording_only(
    vault: EmbeddedVault, client: VaultClient
) -> None:
    vault.put(KEY, BYTES)
    with pytest.raises(RecordingRefused, match="bound to our account"):
        client.fetch(KEY, "storj")
    with pytest.raises(RecordingRefused):
        client.remove(KEY, "storj")
    assert vault.has(KEY)


def test_credentials_that_cannot_be_sent_are_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="VAULT_SECRET_KEY holds a control character"):
        VaultClient("http://vault", ACCESS, "67890\n")


def test_neither_the_client_nor_the_account_prints_a_key(
    vault: EmbeddedVault, client: VaultClient
) -> None:
    shown = f"{client!r} {vault.account!r} {vault.requests!r} {VaultOptions()!r}"
    assert ACCESS not in shown
    assert SECRET not in shown


# --- upload, remove, forward ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bytes", "path", "descriptor"])
def test_uploads_what_it_is_given(
    tmp_path: Path, vault: EmbeddedVault, client: VaultClient, kind: str
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(BYTES)
    if kind == "descriptor":
        with path.open("rb") as file:
            file.seek(1000)  # the position does not matter
            client.upload(file.fileno(), KEY, provider="local")
            assert file.tell() == 1000
    else:
        client.upload(BYTES if kind == "bytes" else path, KEY)
    assert vault.get(KEY) == BYTES


def test_a_refused_upload_says_so(client: VaultClient) -> None:
    with pytest.raises(RecordingRefused):
        client.upload(b"x", KEY, provider="storj")


def test_an_upload_is_announced_as_the_original_shows_it(tmp_path: Path) -> None:
    events: list[bytes] = []
    with (
        EmbeddedVault(
            tmp_path / "v", ACCESS, SECRET, provider="storj", on_event=events.append
        ) as vault,
        VaultClient(vault.url, ACCESS, SECRET) as client,
    ):
        client.upload(
            BYTES, KEY, device="Bfuk14xm40eMSxwEEyrd908yzmDIwKp5", cloud_key="ABCDEFGHI!@#$%12345"
        )
        client.upload(BYTES, "u/holiday.mov", device="cam", duration_ms=20_000, fps=12.5)
    event = json.loads(events[0])
    date = event["date"]
    assert abs(date - time.time()) < 60
    assert event == {
        "provider": "kstorage",
        "source": "storj",
        "request": "persist",
        "payload": {
            "is_fragmented": False,
            "metadata": {
                "productid": "Bfuk14xm40eMSxwEEyrd908yzmDIwKp5",
                "event-timestamp": "1630567591",
                "publickey": "ABCDEFGHI!@#$%12345",
                "event-instancename": "highway4",
                "capture": "IPCamera",
                "event-microseconds": "967003",
                "uploadtime": str(date),
                "event-regioncoordinates": "200-200-400-400",
                "event-token": "769",
                "event-numberofchanges": "24",
            },
            "key": KEY,
            "bytes_range_on_time": None,
            "fileSize": len(BYTES),
            "bytes_ranges": "",
        },
        "events": ["monitor", "sequence", "analysis", "throttler", "notification"],
        "date": date,
    }
    assert list(event) == ["provider", "source", "request", "payload", "events", "date"]
    other = json.loads(events[1])["payload"]["metadata"]
    assert (other["event-instancename"], other["duration"], other["fps"]) == (
        "cam",
        "20000",
        "12.5",
    )


def test_an_event_that_cannot_be_sent_fails_the_upload(tmp_path: Path) -> None:
    def broken(event: bytes) -> None:
        raise ConnectionError("broker away")

    with (
        EmbeddedVault(tmp_path / "v", ACCESS, SECRET, on_event=broken) as vault,
        VaultClient(vault.url, ACCESS, SECRET) as client,
        pytest.raises(VaultUnavailable, match="status 500"),
    ):
        client.upload(BYTES, KEY)


def test_removes_and_removing_again_is_done_too(vault: EmbeddedVault, client: VaultClient) -> None:
    vault.put(KEY, BYTES)
    client.remove(KEY, "local")
    assert not vault.has(KEY)
    assert vault.keys() == ()
    client.remove(KEY, "local")


def test_forwarding_is_accepted_first_and_done_later(tmp_path: Path) -> None:
    with (
        EmbeddedVault(tmp_path / "far", "far", "far secret", provider="s3") as far,
        EmbeddedVault(tmp_path / "near", ACCESS, SECRET, forward_to=far) as near,
        VaultClient(near.url, ACCESS, SECRET) as client,
    ):
        near.put(KEY, BYTES)
        near.put("u/2.mp4", BYTES)
        far.stop()
        client.forward_media(KEY)
        assert near.forwarded == (KEY,)
        assert near.delivered == ()
        far.start()
        wait_until(lambda: near.delivered == (KEY,))
        assert far.get(KEY) == BYTES
        with pytest.raises(RecordingNotFound):
            client.forward_media("u/3.mp4")
        forwarding = next(r for r in near.requests if r.path.endswith("/forward/media"))
        assert protocol.PROVIDER.lower() not in forwarding.header_names


def test_a_vault_without_a_remote_refuses_to_forward(tmp_path: Path) -> None:
    with (
        EmbeddedVault(tmp_path / "v", ACCESS, SECRET, can_forward=False) as vault,
        VaultClient(vault.url, ACCESS, SECRET) as client,
    ):
        vault.put(KEY, BYTES)
        with pytest.raises(RecordingRefused, match="remote Vault set up"):
            client.forward_media(KEY)


def test_metadata_goes_to_the_given_route(vault: EmbeddedVault, client: VaultClient) -> None:
    client.forward_metadata(KEY, b'{"a": 1}')
    assert vault.metadata == ((KEY, b'{"a": 1}'),)
    with pytest.raises(VaultUnavailable, match="no Vault API"):
        client.forward_metadata(KEY, b"{}", path="hub/metadata", method="PUT")


def test_metadata_for_a_vault_without_that_route_is_refused(tmp_path: Path) -> None:
    with (
        EmbeddedVault(tmp_path / "v", ACCESS, SECRET, mount="root") as vault,
        VaultClient(vault.url, ACCESS, SECRET) as client,
        pytest.raises(RecordingRefused, match="FORWARDING_METADATA"),
    ):
        client.forward_metadata(KEY, b"{}", path="/hub/metadata")


# --- the embedded Vault's own manners ------------------------------------------------------------


def test_speaks_as_the_real_one_does(vault: EmbeddedVault) -> None:
    vault.put(KEY, BYTES)
    good = {
        protocol.FILE_NAME: KEY,
        protocol.PROVIDER: "local",
        protocol.ACCESS_KEY: ACCESS,
        protocol.SECRET_KEY: SECRET,
    }
    with httpx.Client(base_url=vault.url, trust_env=False) as http:
        page = http.get("/devices")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert http.get("/api/health").json() == {"data": "healthy"}
        assert http.head("/api/storage", headers=good).status_code == 200
        missing = http.get("/storage", headers=good | {protocol.PROVIDER: ""})
        assert missing.status_code == 400
        assert protocol.PROVIDER in missing.json()["data"]
        wrong = http.get("/api/storage", headers=good | {protocol.SECRET_KEY: "wrong"})
        assert wrong.status_code == 401
        assert ACCESS in wrong.json()["data"]
        assert "wrong" in wrong.json()["data"]
        blob = http.get("/storage/blob", headers=good)
        assert blob.content == BYTES
        assert blob.headers["content-type"] == "video/mp4"
        assert blob.headers["content-disposition"] == f"attachment; filename={KEY}"


def test_signed_urls_know_ranges_and_cannot_be_bent(vault: EmbeddedVault) -> None:
    vault.put(KEY, BYTES)
    keys = {protocol.ACCESS_KEY: ACCESS, protocol.SECRET_KEY: SECRET}
    with httpx.Client(base_url=vault.url, trust_env=False) as http:
        wanted = [{"filename": KEY, "uriExpiryTime": "30m"}, {"filename": "u/other.mp4"}]
        urls = json.loads(http.post("/api/storage/bulk", headers=keys, json=wanted).json()["data"])
        assert list(urls) == [KEY]
        url = urls[KEY]
        part = http.get(url, headers={"Range": "bytes=1000-1999"})
        assert part.status_code == 206
        assert part.content == BYTES[1000:2000]
        assert part.headers["content-range"] == f"bytes 1000-1999/{len(BYTES)}"
        assert http.head(url).headers["content-length"] == str(len(BYTES))
        assert http.get(url.replace("/signed?", "/signed/validate?")).json() == {"data": True}
        assert http.get(url.replace("highway4", "highway5")).status_code == 403
        assert http.get(url.partition("?")[0]).status_code == 403
        vault.stop()
        vault.start()
        assert http.get(url).content == BYTES, "the same Vault, the same key"
        assert http.post("/api/storage/bulk", headers=keys, json={"a": 1}).status_code == 400


def test_an_upload_that_breaks_off_stores_nothing(vault: EmbeddedVault) -> None:
    port = int(vault.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(
            f"POST /storage HTTP/1.1\r\nHost: x\r\n{protocol.FILE_NAME}: {KEY}\r\n"
            f"{protocol.ACCESS_KEY}: {ACCESS}\r\n{protocol.SECRET_KEY}: {SECRET}\r\n"
            "Content-Length: 1000\r\n\r\nonly this".encode()
        )
    wait_until(lambda: len(vault.requests) == 1)
    vault.stop()
    assert not vault.has(KEY)
    assert list(vault._files._folder.iterdir()) == []


def test_stopping_twice_and_from_other_threads_does_no_harm(tmp_path: Path) -> None:
    vault = EmbeddedVault(tmp_path / "v", ACCESS, SECRET)
    vault.stop()
    vault.start()
    thread = threading.Thread(target=vault.stop)
    thread.start()
    thread.join()
    vault.stop()
