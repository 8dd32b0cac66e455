"""The Vault client against servers that misbehave."""

from __future__ import annotations

import gzip
import logging
import os
import resource
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from scripted_http import (
    Ask,
    Line,
    Route,
    ScriptedServer,
    begin_then,
    cut_off,
    hang,
    head,
    in_turn,
    page,
    reply,
    reply_json,
    reset,
    trickle,
)
from vault_ml.errors import (
    ConfigError,
    CredentialsRejected,
    RecordingIncomplete,
    RecordingNotFound,
    RecordingRefused,
    RecordingTooLarge,
    RetryableError,
    SignedUrlExpired,
    SinkUnavailable,
    UnavailableError,
    UndecodableRecording,
    VaultMLError,
    VaultUnavailable,
)
from vault_ml.vault.client import VaultClient, VaultOptions

ACCESS, SECRET = "canary-access-key", "canary-secret-key"
KEY = "youruser/1630567591_6-967003_highway4_200-200-400-400_24_769.mp4"
BYTES = os.urandom(50_000)
QUICK = VaultOptions(
    api_prefix="",
    connect_timeout_s=1,
    read_timeout_s=0.5,
    call_timeout_s=2,
    transfer_timeout_s=1.5,
    max_bytes=1_000_000,
)
PONG = {"POST /ping": reply_json(200, "pong")}
NO_URL = {"GET /storage": reply_json(200, "")}
BLOB = {"GET /storage/blob": reply(200, BYTES, Content_Type="video/mp4")}


def client_of(server: ScriptedServer, options: VaultOptions = QUICK) -> VaultClient:
    return VaultClient(server.url, ACCESS, SECRET, options)


def fetch(server: ScriptedServer, options: VaultOptions = QUICK) -> bytes:
    with client_of(server, options) as client, client.fetch(KEY, "local") as recording:
        return os.read(recording.fd, recording.size_bytes + 1)


def signing(url: str) -> dict[str, Route]:
    return {"GET /storage": reply_json(200, url), **PONG}


# Where a recording may come from: the route that fails, and what leads there.
WAYS = [pytest.param("signed", id="signed URL"), pytest.param("blob", id="blob")]


def vault_whose_recording(way: str, route: Route) -> ScriptedServer:
    """A Vault that fails (only) where the recording's bytes come from."""
    server = ScriptedServer(PONG)
    if way == "signed":
        server.routes |= signing(f"{server.url}/bucket/x?X-Signature=canary-signature")
        server.routes["GET /bucket/x"] = route
    else:
        server.routes |= {**NO_URL, "GET /storage/blob": route}
    return server


# --- not now -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("route", "retry_after_s"),
    [
        pytest.param(reply_json(500, ""), None, id="500"),
        pytest.param(page(502), None, id="502 with a page"),
        pytest.param(reply(503, Retry_After="7"), 7.0, id="503 with Retry-After"),
        pytest.param(reply(429, Retry_After="3"), 3.0, id="429 with Retry-After"),
        pytest.param(reply(408), None, id="408"),
    ],
)
def test_not_now_is_an_outage_that_says_when_to_come_back(
    way: str, route: Route, retry_after_s: float | None
) -> None:
    with (
        vault_whose_recording(way, route) as vault,
        pytest.raises(VaultUnavailable, match=vault.host) as caught,
    ):
        fetch(vault)
    assert caught.value.retry_after_s == retry_after_s


@pytest.mark.parametrize(
    ("route", "retry_after_s"),
    [
        pytest.param(reply(503, Retry_After="7"), 7.0, id="503"),
        pytest.param(hang, None, id="hang"),
        pytest.param(reset, None, id="reset"),
        pytest.param(
            lambda ask, line: line.send(b"\x00\x01 nonsense\r\n\r\n"), None, id="not HTTP"
        ),
        pytest.param(cut_off(b"{", announced=9), None, id="answer cut off"),
    ],
)
def test_every_call_to_a_vault_that_is_away_is_an_outage(
    route: Route, retry_after_s: float | None
) -> None:
    calls: dict[str, tuple[Callable[[VaultClient], object], type[UnavailableError]]] = {
        "POST /ping": (VaultClient.ping, VaultUnavailable),
        "GET /storage": (lambda client: client.fetch(KEY, "local"), VaultUnavailable),
        "POST /storage": (lambda client: client.upload(b"x", KEY), VaultUnavailable),
        "DELETE /storage": (lambda client: client.remove(KEY, "local"), VaultUnavailable),
        "POST /storage/forward/media": (lambda client: client.forward_media(KEY), SinkUnavailable),
        "POST /storage/forward/metadata": (
            lambda client: client.forward_metadata(KEY, b"{}"),
            SinkUnavailable,
        ),
    }
    with ScriptedServer(dict.fromkeys(calls, route)) as vault, client_of(vault) as client:
        for call, expected in calls.values():
            with pytest.raises(expected, match=vault.host) as caught:
                call(client)
            assert type(caught.value) is expected
            assert caught.value.retry_after_s == retry_after_s


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "route",
    [
        pytest.param(hang, id="before a word"),
        pytest.param(begin_then(b"abc", announced=9, then=hang), id="in the middle"),
        pytest.param(reset, id="reset before a word"),
        pytest.param(begin_then(b"abc", announced=9, then=reset), id="reset in the middle"),
    ],
)
def test_silence_and_resets_are_an_outage(way: str, route: Route) -> None:
    started = time.monotonic()
    with (
        vault_whose_recording(way, route) as vault,
        pytest.raises(VaultUnavailable, match=vault.host),
    ):
        fetch(vault)
    assert time.monotonic() - started < 5


def test_a_vault_that_is_not_there_is_an_outage() -> None:
    with ScriptedServer() as vault:
        client = client_of(vault)
    with client, pytest.raises(VaultUnavailable, match=r"refused.*check VAULT_API_URL"):
        client.ping()
    with (
        VaultClient("http://vault.invalid", ACCESS, SECRET, QUICK) as client,
        pytest.raises(VaultUnavailable, match=r"vault\.invalid does not answer"),
    ):
        client.fetch(KEY, "local")


# --- the recording's own trouble -----------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "route",
    [
        pytest.param(reply(200), id="empty"),
        pytest.param(cut_off(BYTES, announced=len(BYTES) + 1), id="one byte short"),
        pytest.param(
            lambda ask, line: line.send(
                head(200, {"Transfer-Encoding": "chunked"}) + b"5\r\nabcde\r\n"
            ),
            id="chunked without an end",
        ),
        pytest.param(
            reply(200, gzip.compress(BYTES)[:-9], Content_Encoding="gzip"), id="half a gzip"
        ),
        pytest.param(reply(200, b"no gzip", Content_Encoding="gzip"), id="damaged gzip"),
        pytest.param(
            trickle(head(200, {"Content-Length": "900000"}), b"x", every_s=0.05), id="a trickle"
        ),
    ],
)
def test_half_a_recording_is_never_taken_for_a_whole_one(way: str, route: Route) -> None:
    started = time.monotonic()
    with vault_whose_recording(way, route) as vault, pytest.raises(RecordingIncomplete):
        fetch(vault)
    assert time.monotonic() - started < 5


def test_headers_that_never_end_meet_the_time_limit() -> None:
    route = trickle(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n", every_s=0.05)
    with (
        vault_whose_recording("blob", route) as vault,
        pytest.raises(RecordingIncomplete, match=r"within 1\.5 s"),
    ):
        fetch(vault)
    with (
        ScriptedServer({"GET /storage": route}) as vault,
        pytest.raises(VaultUnavailable, match="within 2 s"),
    ):
        fetch(vault)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "route",
    [
        pytest.param(cut_off(b"abc", announced=10**12), id="announced"),
        pytest.param(trickle(head(200, {}), bytes(200_000), every_s=0.001), id="without a length"),
    ],
)
def test_a_recording_without_end_is_given_up_at_the_limit(way: str, route: Route) -> None:
    with (
        vault_whose_recording(way, route) as vault,
        pytest.raises(RecordingTooLarge, match="1000000 bytes"),
    ):
        fetch(vault)


@pytest.mark.parametrize("way", WAYS)
def test_compressed_recordings_are_unpacked_whatever_their_length_says(way: str) -> None:
    twice = gzip.compress(BYTES[:100]) + gzip.compress(BYTES[100:])
    route = reply(200, twice, Content_Encoding="gzip", Content_Type="video/mp4")
    with vault_whose_recording(way, route) as vault:
        assert fetch(vault) == BYTES


def test_an_encoding_that_nobody_asked_for_is_not_guessed_at() -> None:
    with (
        vault_whose_recording("blob", reply(200, b"abc", Content_Encoding="br")) as vault,
        pytest.raises(UndecodableRecording, match="Content-Encoding"),
    ):
        fetch(vault)


def test_a_full_disk_pauses_instead_of_failing_the_recording(tmp_path: Path) -> None:
    options = VaultOptions(api_prefix="", work_dir=tmp_path)
    with ScriptedServer({**PONG, **NO_URL, **BLOB}) as vault:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        try:
            with pytest.raises(UnavailableError, match="no room for a recording in"):
                fetch(vault, options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list(tmp_path.iterdir()) == []
        assert fetch(vault, options) == BYTES


def test_a_vault_that_goes_away_before_the_blob_is_an_outage() -> None:
    with ScriptedServer(PONG) as vault:

        def leave(ask: Ask, line: Line) -> None:
            vault.stop_listening()
            reply_json(200, "")(ask, line)

        vault.routes["GET /storage"] = leave
        with pytest.raises(VaultUnavailable, match="check VAULT_API_URL"):
            fetch(vault)


@pytest.mark.parametrize("status", [201, 206])
def test_a_success_of_another_kind_is_not_taken_for_a_recording(status: int) -> None:
    with (
        vault_whose_recording("blob", reply(status, BYTES)) as vault,
        pytest.raises(VaultUnavailable, match=f"answers {status} instead of a recording"),
    ):
        fetch(vault)


# --- refusals ------------------------------------------------------------------------------------


def test_without_a_ping_nobody_knows_whose_fault_a_refusal_is() -> None:
    routes = {"GET /storage": reply_json(401, ""), "GET /health": reply_json(200, "ok")}
    with ScriptedServer(routes) as vault:
        with pytest.raises(RetryableError, match="no ping"):
            fetch(vault)
        with client_of(vault) as client:
            client.ping()  # an old Vault that is healthy


def test_a_vault_that_is_away_when_asked_about_a_refusal_is_an_outage() -> None:
    routes = {"GET /storage": reply_json(403, ""), "POST /ping": reply(503, Retry_After="9")}
    with ScriptedServer(routes) as vault, pytest.raises(VaultUnavailable) as caught:
        fetch(vault)
    assert caught.value.retry_after_s == 9.0


@pytest.mark.parametrize("status", [402, 418, 451])
def test_any_other_refusal_is_final(status: int) -> None:
    with (
        ScriptedServer({**PONG, "GET /storage": reply_json(status, "")}) as vault,
        pytest.raises(RecordingRefused, match=f"status {status}"),
    ):
        fetch(vault)


def test_a_vault_that_takes_no_large_uploads_says_so() -> None:
    with (
        ScriptedServer({**PONG, "POST /storage": page(413)}) as vault,
        client_of(vault) as client,
        pytest.raises(RecordingTooLarge, match="2 bytes"),
    ):
        client.upload(b"xy", KEY)


@pytest.mark.parametrize("status", [400, 404, 405, 501])
def test_a_vault_without_signed_urls_is_asked_for_the_bytes(status: int) -> None:
    routes = {**PONG, **BLOB, "GET /storage": reply_json(status, "")}
    with ScriptedServer(routes) as vault:
        assert fetch(vault) == BYTES


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("way", WAYS)
def test_a_recording_that_is_gone_is_not_found(way: str, status: int) -> None:
    with (
        vault_whose_recording(way, reply_json(status, "")) as vault,
        pytest.raises(RecordingNotFound, match=vault.host),
    ):
        fetch(vault)


# --- wrong addresses -----------------------------------------------------------------------------


def test_a_page_instead_of_a_recording_is_a_wrong_address() -> None:
    with (
        ScriptedServer({**PONG, **NO_URL, "GET /storage/blob": page(200)}) as vault,
        pytest.raises(VaultUnavailable, match="no Vault API"),
    ):
        fetch(vault)


def test_a_page_everywhere_is_a_wrong_address() -> None:
    everything = {"POST /ping", "GET /health", "GET /storage", "POST /api/ping", "GET /api/health"}
    with (
        ScriptedServer(dict.fromkeys(everything, page(200))) as vault,
        VaultClient(vault.url, ACCESS, SECRET) as client,
        pytest.raises(ConfigError, match=r"tried /api and /"),
    ):
        client.ping()


def test_our_credentials_do_not_follow_a_redirect() -> None:
    with ScriptedServer(PONG) as other, ScriptedServer() as vault:
        moved = reply(308, Location=f"{other.url}/ping?token=canary-token")
        vault.routes |= dict.fromkeys(("POST /ping", "GET /storage", "GET /health"), moved)
        with client_of(vault) as client:
            with pytest.raises(ConfigError, match=f"redirects to {other.url}") as caught:
                client.ping()
            assert "canary" not in str(caught.value)
            with pytest.raises(VaultUnavailable, match=f"redirects to {other.url}"):
                client.fetch(KEY, "local")
        assert other.asks == []


def test_a_vault_that_is_away_is_not_taken_for_a_wrong_address() -> None:
    routes = {"POST /api/ping": reply(503, Retry_After="5"), "POST /ping": page(200)}
    with ScriptedServer(routes) as vault, VaultClient(vault.url, ACCESS, SECRET) as client:
        with pytest.raises(VaultUnavailable) as caught:
            client.ping()
        assert caught.value.retry_after_s == 5.0


# --- signed URLs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403])
def test_an_expired_url_is_renewed_once(status: int) -> None:
    with vault_whose_recording("signed", in_turn(reply(status), reply(200, BYTES))) as vault:
        assert fetch(vault) == BYTES
        assert vault.paths().count("/storage") == 2
    with vault_whose_recording("signed", reply(status)) as vault:
        with pytest.raises(SignedUrlExpired, match=f"refuses \\({status}\\)"):
            fetch(vault)
        assert vault.paths().count("/bucket/x") == 2


def test_a_renewal_that_brings_no_url_falls_back_to_the_blob() -> None:
    with vault_whose_recording("signed", reply(403)) as vault:
        vault.routes |= BLOB
        vault.routes["GET /storage"] = in_turn(vault.routes["GET /storage"], reply_json(200, None))
        assert fetch(vault) == BYTES


def test_a_storage_redirect_is_followed_with_nothing_of_ours() -> None:
    with ScriptedServer({"GET /far/x": reply(200, BYTES)}) as storage:
        moved = reply(307, Location=f"{storage.url}/far/x?sig=1", Set_Cookie="canary=1")
        with vault_whose_recording("signed", moved) as vault:
            assert fetch(vault) == BYTES
            asks = [ask for ask in vault.asks if ask.path == "/bucket/x"] + storage.asks
    assert len(asks) == 2
    for ask in asks:
        assert not [name for name in ask.headers if name.startswith("x-kerberos")]
        assert "canary" not in "".join(ask.headers.values())
        assert set(ask.headers) == {"host", "user-agent", "accept", "accept-encoding"}


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "http://user:pass@127.0.0.1/x", "/bucket/x", "http://[::1", ""],
)
def test_a_redirect_that_may_not_be_followed_falls_back_to_the_blob(location: str) -> None:
    with vault_whose_recording("signed", reply(302, Location=location)) as vault:
        vault.routes |= BLOB
        assert fetch(vault) == BYTES


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "gopher://127.0.0.1/x", "http://a:b@127.0.0.1/x", "/relative"]
)
def test_a_url_that_may_not_be_fetched_falls_back_to_the_blob(url: str) -> None:
    with ScriptedServer({**signing(url), **BLOB}) as vault:
        assert fetch(vault) == BYTES


def test_a_storage_that_only_the_vault_can_reach_is_not_tried_again_at_once() -> None:
    with ScriptedServer() as gone:
        pass
    with ScriptedServer({**signing(f"{gone.url}/x"), **BLOB}) as vault, client_of(vault) as client:
        for _ in range(2):
            with client.fetch(KEY, "local") as recording:
                assert recording.route == "blob"
        assert client._retrieval._storages._is_unreachable(gone.host)


# --- secrets -------------------------------------------------------------------------------------

ECHO = reply_json(401, f"no account {ACCESS} {SECRET}")
SIGNED = "http://127.0.0.1:1/x?X-Signature=canary-signature"


@pytest.mark.parametrize(
    "routes",
    [
        pytest.param({"GET /storage": ECHO, "POST /ping": ECHO}, id="401 echoes the keys"),
        pytest.param({"GET /storage": ECHO, **PONG}, id="401 for this recording"),
        pytest.param({"GET /storage": reply(400, SECRET.encode())}, id="400 echoes a key"),
        pytest.param({"GET /storage": reply(503, SECRET.encode())}, id="503 echoes a key"),
        pytest.param({"GET /storage": reply(302, Location=SIGNED)}, id="redirect with a query"),
        pytest.param(
            {"GET /storage": lambda ask, line: line.send(f"HTTP/9 {SECRET} x\r\n\r\n".encode())},
            id="not HTTP, and echoes a key",
        ),
        pytest.param(
            {
                "GET /storage": lambda ask, line: line.send(
                    f"HTTP/1.1 200 OK\r\n{SECRET}\r\n\r\n".encode()
                )
            },
            id="broken header that is a key",
        ),
        pytest.param(signing(SIGNED), id="signed URL leads nowhere"),
        pytest.param(signing("http://[canary"), id="signed URL is no address"),
        pytest.param({"GET /storage": page(200), "POST /ping": page(200)}, id="wrong address"),
    ],
)
def test_no_error_shows_a_key_or_a_signature(
    routes: dict[str, Route], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with ScriptedServer(routes) as vault, client_of(vault) as client:
        with pytest.raises(VaultMLError, match=vault.host) as fetched:
            client.fetch(KEY, "local")
        shown = "".join(traceback.format_exception(fetched.value)) + repr(fetched.value)
        with suppress(VaultMLError):
            client.ping()
    assert "canary" not in shown
    assert "canary" not in caplog.text


def test_no_rejected_ping_shows_a_key() -> None:
    with ScriptedServer({"POST /ping": ECHO}) as vault, client_of(vault) as client:
        with pytest.raises(CredentialsRejected, match=vault.host) as caught:
            client.ping()
        assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_no_error_of_a_storage_shows_the_signature() -> None:
    failures = (
        reply(403), reply(404), reply(503), hang, reset, reply(302, Location=SIGNED),
        cut_off(b"x", announced=9), cut_off(b"x", announced=10**12),
        lambda ask, line: line.send(b"HTTP/9 canary\r\n\r\n"),
    )  # fmt: skip
    for failure in failures:
        with vault_whose_recording("signed", failure) as vault:
            with pytest.raises(VaultMLError, match=vault.host) as caught:
                fetch(vault)
            assert "canary" not in "".join(traceback.format_exception(caught.value))
