"""The ways to a recording and their order; connections to checked addresses only."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from scripted_http import Ask, Line, Route, ScriptedServer, reply, reply_json
from vault_ml.errors import (
    AddressRefused,
    ConfigError,
    RecordingNotFound,
    RecordingRefused,
    SignedUrlExpired,
    VaultUnavailable,
)
from vault_ml.vault.addresses import Origins
from vault_ml.vault.client import VaultClient, VaultOptions

ACCESS, SECRET = "canary-access-key", "canary-secret-key"
KEY = "youruser/1630567591_6-967003_highway4_200-200-400-400_24_769.mp4"
QUICK = VaultOptions(
    api_prefix="", connect_timeout_s=1, read_timeout_s=1, call_timeout_s=3, transfer_timeout_s=3
)
PONG = {"POST /ping": reply_json(200, "pong")}
PROVIDER = "x-kerberos-storage-provider"


def by_provider(routes: dict[str, Route]) -> Route:
    """A route for each storage provider; 404 in JSON for the others."""
    return lambda ask, line: routes.get(ask.headers[PROVIDER], reply_json(404, "no"))(ask, line)


def fetch(
    vault: ScriptedServer, *, options: VaultOptions = QUICK, secondary: Sequence[str] = (),
    signed_url: str | None = None,
) -> tuple[bytes, list[str]]:  # fmt: skip
    """What was fetched, and what was asked for on the way."""
    with (
        VaultClient(vault.url, ACCESS, SECRET, options) as client,
        client.fetch(KEY, "s3", signed_url=signed_url, secondary_providers=secondary) as recording,
    ):
        content = os.read(recording.fd, 1000)
    return content, vault.paths()


def allowing(*origins: str) -> VaultOptions:
    return replace(QUICK, origins=Origins.parse(origins))


# --- the order -----------------------------------------------------------------------------------


def test_the_events_own_url_comes_first_and_needs_no_vault() -> None:
    with (
        ScriptedServer({"GET /bucket/x": reply(200, b"recording")}) as storage,
        ScriptedServer(PONG) as vault,
    ):
        url = f"{storage.url}/bucket/x?X-Signature=1"
        content, asked = fetch(vault, signed_url=url, options=allowing(storage.url))
        assert (content, asked) == (b"recording", [])
        (ask,) = storage.asks
        assert set(ask.headers) == {"host", "user-agent", "accept", "accept-encoding"}


def test_a_url_of_the_vault_itself_needs_no_permission() -> None:
    with ScriptedServer({"GET /storage/signed": reply(200, b"recording")}) as vault:
        content, _ = fetch(vault, signed_url=f"{vault.url}/storage/signed?s=1")
        assert content == b"recording"


@pytest.mark.parametrize(
    "route",
    [reply(403), reply(400), reply(404), reply(503), reply(500), reply(204),
     lambda ask, line: line.reset()],
    ids=["403", "400", "404", "503", "500", "204", "reset"],
)  # fmt: skip
def test_when_the_events_url_does_not_work_the_vault_is_asked(route: Route) -> None:
    with ScriptedServer({"GET /old": route, "GET /fresh": reply(200, b"recording")}) as vault:
        vault.routes["GET /storage"] = reply_json(200, f"{vault.url}/fresh?s=2")
        content, asked = fetch(vault, signed_url=f"{vault.url}/old?s=1")
        assert content == b"recording"
        assert asked == ["/old", "/storage", "/fresh"]


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/latest", "file:///etc/passwd", "http://127.0.0.1:1/x", "nonsense",
     "http://s3.example.org/not-listed", "", "http://user:pass@vault.example/x"],
)  # fmt: skip
def test_an_events_url_that_is_not_allowed_is_passed_over(url: str) -> None:
    with ScriptedServer({**PONG, "GET /storage/blob": reply(200, b"recording")}) as vault:
        vault.routes["GET /storage"] = reply_json(200, "")
        content, asked = fetch(vault, signed_url=url)
        assert content == b"recording"
        assert asked == ["/storage", "/storage/blob"]


def test_secondary_providers_are_asked_in_order() -> None:
    with ScriptedServer({**PONG, "GET /b": reply(403), "GET /c": reply(200, b"from c")}) as vault:
        vault.routes["GET /storage"] = by_provider(
            {"b": reply_json(200, f"{vault.url}/b"), "c": reply_json(200, f"{vault.url}/c")}
        )
        content, _ = fetch(vault, secondary=["a", "b", "s3", "b", "c", "d"])
        assert content == b"from c"
        asked = [(ask.path, ask.headers.get(PROVIDER, "")) for ask in vault.asks]
        assert asked == [
            ("/storage", "s3"), ("/storage/blob", "s3"),
            ("/storage", "a"), ("/storage/blob", "a"),
            ("/storage", "b"), ("/b", ""), ("/storage", "b"), ("/b", ""), ("/storage/blob", "b"),
            ("/storage", "c"), ("/c", ""),
        ]  # fmt: skip


def test_a_secondary_provider_stands_in_for_a_storage_that_is_away() -> None:
    with ScriptedServer({**PONG, "GET /c": reply(200, b"from c")}) as vault:
        vault.routes["GET /storage"] = by_provider(
            {"s3": reply(503), "c": reply_json(200, f"{vault.url}/c")}
        )
        assert fetch(vault, secondary=["c"])[0] == b"from c"


def test_only_so_many_secondary_providers_are_asked() -> None:
    with ScriptedServer(PONG) as vault:
        with pytest.raises(RecordingNotFound):
            fetch(vault, secondary=[f"p{number}" for number in range(1000)])
        assert len({ask.headers[PROVIDER] for ask in vault.asks}) == 5


@pytest.mark.parametrize("name", ["bad\r\nX: 1", " blank", "\ud800"])
def test_a_secondary_provider_without_a_possible_name_condemns_nothing(name: str) -> None:
    with ScriptedServer({**PONG, "GET /storage/blob": reply(200, b"recording")}) as vault:
        assert fetch(vault, secondary=[name])[0] == b"recording"


# --- which error remains -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        (reply_json(404, ""), reply(503), VaultUnavailable),
        (reply(503), reply_json(404, ""), VaultUnavailable),
        (reply_json(401, ""), reply_json(404, ""), RecordingNotFound),
        (reply_json(404, ""), reply_json(401, ""), RecordingNotFound),
        (reply_json(401, ""), reply_json(402, ""), RecordingRefused),
    ],
    ids=["second away", "first away", "first refused", "second refused", "both refused"],
)
def test_what_may_pass_outweighs_what_will_not(
    first: Route, second: Route, error: type[Exception]
) -> None:
    with ScriptedServer(PONG) as vault:
        vault.routes["GET /storage"] = by_provider({"s3": first, "b": second})
        with pytest.raises(error):
            fetch(vault, secondary=["b"])


def test_a_url_that_no_fresh_one_replaces_has_expired() -> None:
    with ScriptedServer({**PONG, "GET /x": reply(403)}) as vault:
        vault.routes["GET /storage"] = reply_json(200, f"{vault.url}/x")
        with pytest.raises(SignedUrlExpired, match="clocks"):
            fetch(vault, signed_url=f"{vault.url}/x")
        assert vault.paths() == ["/x", "/storage", "/x", "/storage", "/x", "/storage/blob"]


# --- connections ---------------------------------------------------------------------------------


class Names:
    """A name server of our own; each answer is given once, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def served_by_name(vault: ScriptedServer, names: Callable[[str, int], Sequence[str]]) -> bytes:
    """Fetch when the Vault signs a URL with a host name."""
    port = vault.host.rpartition(":")[2]
    vault.routes |= {
        **PONG,
        "GET /storage": reply_json(200, f"http://minio.internal:{port}/x?s=1"),
        "GET /x": reply(200, b"from the storage"),
        "GET /storage/blob": reply(200, b"blob"),
    }
    return fetch(vault, options=replace(QUICK, resolver=names))[0]


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    with ScriptedServer() as vault:
        assert served_by_name(vault, names) == b"from the storage"
        assert names.asked == ["minio.internal"], "never a second resolution (rebinding)"
        assert vault.asks[-1].headers["host"].startswith("minio.internal:")


@pytest.mark.parametrize(
    "addresses",
    [["169.254.169.254"], ["127.0.0.1", "169.254.169.254"], ["127.0.0.1", "::ffff:169.254.0.1"],
     ["fe80::1%eth0"], ["0.0.0.0"], ["fd00:ec2::254", "127.0.0.1"], ["nonsense"], []],
)  # fmt: skip
def test_one_bad_address_is_enough_to_connect_to_none(addresses: list[str]) -> None:
    with ScriptedServer() as vault:
        assert served_by_name(vault, Names(addresses)) == b"blob"
        assert "/x" not in vault.paths()


def test_a_dead_address_gives_way_to_the_next() -> None:
    with ScriptedServer() as vault:
        assert served_by_name(vault, Names(["127.0.0.2", "127.0.0.1"])) == b"from the storage"


def test_a_name_that_nobody_knows_is_no_way() -> None:
    def unknown(host: str, port: int) -> Sequence[str]:
        raise OSError(-2, "Name or service not known")

    with ScriptedServer() as vault:
        assert served_by_name(vault, unknown) == b"blob"


def test_a_forged_name_blocks_no_good_one() -> None:
    """What a message may not reach stays open for the Vault's own word."""
    names = Names(["127.0.0.1"])
    with ScriptedServer() as vault:
        port = vault.host.rpartition(":")[2]
        url = f"http://minio.internal:{port}/x"
        vault.routes |= {
            **PONG, "GET /storage": reply_json(200, url), "GET /x": reply(200, b"good"),
        }  # fmt: skip
        options = replace(allowing("*"), resolver=names)
        assert fetch(vault, options=options, signed_url=url)[0] == b"good"
        assert vault.paths().count("/x") == 1


def test_a_redirect_to_a_forbidden_place_is_not_followed() -> None:
    for target in ("http://169.254.169.254/x", "http://10.1.2.3/x", "http://localhost./x"):
        with ScriptedServer({**PONG, "GET /storage/blob": reply(200, b"blob")}) as vault:
            vault.routes["GET /x"] = reply(302, Location=target)
            vault.routes["GET /storage"] = reply_json(200, f"{vault.url}/x")
            assert fetch(vault)[0] == b"blob"


# --- a Vault that an event names -----------------------------------------------------------------


def test_a_vault_from_an_event_must_be_allowed() -> None:
    with ScriptedServer(PONG) as vault:
        for origins in ([], ["*"], ["https://other.example"]):
            with pytest.raises(AddressRefused):
                VaultClient(vault.url, ACCESS, SECRET, allowing(*origins), is_from_event=True)
        vault.routes["GET /storage/blob"] = reply(200, b"recording")
        with (
            VaultClient(
                vault.url, ACCESS, SECRET, allowing(vault.url), is_from_event=True
            ) as client,
            client.fetch(KEY, "s3") as recording,
        ):
            assert recording.size_bytes == 9


def test_a_vault_from_an_event_may_not_resolve_to_a_private_address() -> None:
    asked: list[Ask] = []

    def note(ask: Ask, line: Line) -> None:
        asked.append(ask)

    with ScriptedServer({"POST /ping": note, "GET /storage": note}) as vault:
        port = vault.host.rpartition(":")[2]
        options = replace(allowing("*"), resolver=Names(["127.0.0.1"]))
        with (
            VaultClient(
                f"http://hub.example:{port}", ACCESS, SECRET, options, is_from_event=True
            ) as client,
        ):
            calls: list[Callable[[], object]] = [
                client.ping, lambda: client.fetch(KEY, "s3"), lambda: client.remove(KEY, "s3"),
                lambda: client.forward_media(KEY),
            ]  # fmt: skip
            for call in calls:
                with pytest.raises(AddressRefused, match=r"this machine.*MESSAGE_VAULT_ORIGINS"):
                    call()
    assert asked == []


def test_wrong_keys_from_an_event_are_that_events_trouble() -> None:
    wrong = reply_json(401, f"no account {ACCESS} {SECRET}")
    with (
        ScriptedServer({"GET /storage": wrong, "POST /ping": wrong}) as vault,
        VaultClient(vault.url, ACCESS, SECRET, allowing(vault.url), is_from_event=True) as client,
        pytest.raises(RecordingRefused, match="came in the event") as caught,
    ):
        client.fetch(KEY, "s3")
    assert "canary" not in str(caught.value)


def test_a_configured_address_that_cannot_be_called_is_a_configuration_error() -> None:
    for url in ("http://vault.example.", "http://127.1", "http://vault.example:25"):
        with pytest.raises(ConfigError, match="VAULT_API_URL"):
            VaultClient(url, ACCESS, SECRET)
