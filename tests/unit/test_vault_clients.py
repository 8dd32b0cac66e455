"""Whose keys go where: the configured Vault's, and those that events bring."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from scripted_http import Ask, Line, ScriptedServer, reply, reply_json
from vault_ml.demo.vault_server import EmbeddedVault
from vault_ml.errors import (
    AddressRefused,
    MalformedEvent,
    RetryableError,
    UnavailableError,
    VaultMLError,
    VaultUnavailable,
)
from vault_ml.event import Storage, parse
from vault_ml.vault import clients as clients_module
from vault_ml.vault.addresses import Origins
from vault_ml.vault.client import VaultClient, VaultOptions
from vault_ml.vault.clients import NAMED_VAULT_PATIENCE_S, VaultClients

KEY = "youruser/1630567591_6-967003_highway4_200-200-400-400_24_769.mp4"
OUR_ACCESS, OUR_SECRET = "our-access-key", "our-secret-key"


def storage(url: str, access: str = "their-access", secret: str = "their-secret") -> Storage:
    return Storage(url, SecretStr(access), SecretStr(secret))


def options(*origins: str) -> VaultOptions:
    return VaultOptions(origins=Origins.parse(origins), connect_timeout_s=1)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EmbeddedVault]:
    with EmbeddedVault(tmp_path / "own", OUR_ACCESS, OUR_SECRET) as vault:
        vault.put(KEY, b"ours")
        yield vault


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[EmbeddedVault]:
    with EmbeddedVault(tmp_path / "theirs", "their-access", "their-secret") as vault:
        vault.put(KEY, b"theirs")
        yield vault


def fetched(vaults: VaultClients, named: Storage | None) -> int:
    with vaults.lease(named) as lease, lease.vault.fetch(KEY, "local") as recording:
        return recording.size_bytes


# --- what events say -----------------------------------------------------------------------------

ACCOUNT = ("https://v.example", "a", "s")


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({}, None),
        ({"data": {"storage_uri": "https://v.example", "storage_access_key": "a",
                   "storage_secret": "s"}}, ACCOUNT),
        ({"data": {"storage_uri": "https://v.example", "storage_access_key": "a",
                   "storage_secret_key": "s"}}, ACCOUNT),
        ({"monitorStage": {"user": {"storage": {"uri": "https://v.example", "access_key": "a",
                                                "secret_key": "s", "provider": "p"}}}}, ACCOUNT),
        ({"storage": {"uri": "https://v.example", "accessKey": "a", "secret": "s"}}, ACCOUNT),
        ({"storage": {"uri": "https://w.example", "accessKey": "b", "secret": "t",
                      "vaultOverrideUri": "https://v.example", "vaultOverrideAccessKey": "a",
                      "vaultOverrideSecret": "s", "vaultOverrideProvider": "p"}},
         (*ACCOUNT, "p")),
        # Half a set is none: never completed with ours, nor with another place's.
        ({"data": {"storage_uri": "https://evil.example"}}, None),
        ({"data": {"storage_uri": "https://evil.example", "storage_access_key": "a"}}, None),
        ({"data": {"storage_uri": "https://evil.example"},
          "storage": {"uri": "https://v.example", "accessKey": "a", "secret": "s"}}, ACCOUNT),
        ({"data": {"storage_uri": "", "storage_access_key": "", "storage_secret": ""}}, None),
        ({"storage": {"uri": "https://w.example", "accessKey": "b", "secret": "t",
                      "vaultOverrideUri": "https://evil.example"}},
         ("https://w.example", "b", "t")),
        # Hints of the wrong kind condemn nothing.
        ({"data": None, "storage": [], "monitorStage": {"user": "me"}}, None),
        ({"data": {"storage_uri": 5, "storage_access_key": [], "storage_secret": {}}}, None),
        ({"data": {"storage_uri": "https://v.example\r\nX: 1", "storage_access_key": "a",
                   "storage_secret": "s"}}, None),
    ],
)  # fmt: skip
def test_an_event_names_a_vault_wholly_or_not_at_all(
    more: dict[str, Any], found: tuple[str, ...] | None
) -> None:
    event = parse(json.dumps({"source": "s", "payload": {"key": "k"}, **more}).encode())
    if found is None:
        assert event.storage is None
        return
    assert event.storage is not None
    uri, access_key, secret_key, *provider = found
    assert event.storage.uri == uri
    assert event.storage.access_key.get_secret_value() == access_key
    assert event.storage.secret_key.get_secret_value() == secret_key
    assert event.storage.provider == (provider[0] if provider else None)


def test_a_named_vault_does_not_show_itself() -> None:
    named = storage("https://canary.example", "canary", "canary")
    assert "canary" not in repr(named) + str(named) + f"{named}"
    data = dict.fromkeys(("storage_uri", "storage_access_key", "storage_secret"), "canary")
    document = {"source": "s", "payload": {"key": "k"}, "data": data}
    assert "canary" not in repr(parse(json.dumps(document).encode()))


# --- which Vault ---------------------------------------------------------------------------------


def test_without_permission_an_event_cannot_turn_us_to_another_vault(
    own: EmbeddedVault, theirs: EmbeddedVault
) -> None:
    with VaultClient(own.url, OUR_ACCESS, OUR_SECRET) as client:
        for origins in ([], ["*"], ["https://other.example"]):
            vaults = VaultClients(client, options(*origins))
            with vaults.lease(storage(theirs.url)) as lease:
                assert lease.is_own
            assert fetched(vaults, storage(theirs.url)) == len(b"ours")
            assert fetched(vaults, None) == len(b"ours")
    assert theirs.requests == ()


def test_with_permission_an_events_vault_gets_the_events_keys(
    own: EmbeddedVault, theirs: EmbeddedVault
) -> None:
    with VaultClient(own.url, OUR_ACCESS, OUR_SECRET) as client:
        vaults = VaultClients(client, options(theirs.url))
        assert fetched(vaults, storage(theirs.url)) == len(b"theirs")
        before = len(theirs.requests)
        assert fetched(vaults, None) == len(b"ours"), "for that message only"
        assert len(theirs.requests) == before
        vaults.close()


def test_our_keys_never_go_to_an_address_from_an_event() -> None:
    """The forged message of the ecosystem's first clients: an address, and no keys of its own."""
    seen: list[str] = []

    def note(ask: Ask, line: Line) -> None:
        seen.extend(ask.headers.values())
        reply(404)(ask, line)

    forged: dict[str, object] = {"source": "s", "payload": {"key": KEY}}
    routes = dict.fromkeys(("POST /ping", "GET /storage", "GET /health", "GET /storage/blob"), note)
    with (
        ScriptedServer(routes) as evil,
        ScriptedServer({"POST /ping": reply_json(200, "")}) as ours,
        VaultClient(ours.url, OUR_ACCESS, OUR_SECRET) as client,
    ):
        vaults = VaultClients(client, options(evil.url))
        halves: list[dict[str, str]] = [{"storage_access_key": "x"}, {"storage_secret": "y"}, {}]
        for half in halves:
            forged["data"] = {"storage_uri": evil.url, **half}
            event = parse(json.dumps(forged).encode())
            with vaults.lease(event.storage) as lease:
                assert lease.is_own
        with vaults.lease(storage(evil.url, "x", "y")) as lease, pytest.raises(VaultMLError):
            lease.vault.fetch(KEY, "s")
        vaults.close()
    assert "x" in seen
    assert OUR_ACCESS not in seen
    assert OUR_SECRET not in seen


def test_without_a_vault_of_our_own_the_event_must_name_one(theirs: EmbeddedVault) -> None:
    vaults = VaultClients(None, options(theirs.url))
    assert fetched(vaults, storage(theirs.url)) == len(b"theirs")
    with pytest.raises(MalformedEvent, match="brings no address"), vaults.lease(None):
        pass
    with pytest.raises(AddressRefused, match="MESSAGE_VAULT_ORIGINS"):
        fetched(vaults, storage("https://other.example"))
    vaults.close()
    anywhere = VaultClients(None, options("*"))
    with pytest.raises(AddressRefused, match="this machine"):
        fetched(anywhere, storage(theirs.url))


@pytest.mark.parametrize(
    "named",
    [storage("nonsense"), storage("https://u:p@v.example"), storage("https://v.example?x=canary"),
     storage("https://v.example", "canary\n"), storage("https://v.example", secret=" canary")],
)  # fmt: skip
def test_a_vault_that_cannot_be_right_condemns_only_its_event(named: Storage) -> None:
    vaults = VaultClients(None, options("*"))
    with pytest.raises((MalformedEvent, AddressRefused)) as caught, vaults.lease(named):
        pass
    assert "canary" not in str(caught.value)
    assert "VAULT_API_URL" not in str(caught.value)


def test_a_named_vault_that_is_away_is_no_outage_of_ours(theirs: EmbeddedVault) -> None:
    vaults = VaultClients(None, options(theirs.url))
    theirs.stop()
    with (
        vaults.lease(storage(theirs.url)) as lease,
        pytest.raises(RetryableError) as caught,
    ):
        lease.run(lambda vault: vault.fetch(KEY, "local"))
    assert caught.value.patience_s == NAMED_VAULT_PATIENCE_S
    with vaults.lease(storage(theirs.url)) as lease, pytest.raises(RetryableError):
        lease.run(lambda vault: vault.forward_media(KEY))
    vaults.close()


def test_our_vault_that_is_away_is_an_outage(own: EmbeddedVault) -> None:
    own.stop()
    with VaultClient(own.url, OUR_ACCESS, OUR_SECRET) as client:
        vaults = VaultClients(client, options())
        with vaults.lease(None) as lease, pytest.raises(VaultUnavailable):
            lease.run(lambda vault: vault.fetch(KEY, "local"))


def test_a_full_disk_stays_ours_whoever_named_the_vault() -> None:
    def full(vault: VaultClient) -> None:
        raise UnavailableError("no room")

    vaults = VaultClients(None, options("*"))
    with vaults.lease(storage("https://v.example")) as lease, pytest.raises(UnavailableError):
        lease.run(full)
    vaults.close()


# --- how long clients are kept -------------------------------------------------------------------


def test_a_client_is_used_again_for_the_same_account_only() -> None:
    vaults = VaultClients(None, options("*"))
    seen = []
    for named in (
        storage("https://v.example"), storage("https://v.example"),
        storage("https://v.example", "other"), storage("https://v.example", secret="other"),
        storage("https://v.example/api"), storage("https://v.exampl", "etheir-access"),
    ):  # fmt: skip
        with vaults.lease(named) as lease:
            seen.append(lease.vault)
    assert len({id(vault) for vault in seen}) == 5
    assert seen[0] is seen[1]
    vaults.close()


def test_only_idle_clients_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    close = VaultClient.close

    def noted(self: VaultClient) -> None:
        closed.append(self.host)
        close(self)

    monkeypatch.setattr(VaultClient, "close", noted)
    monkeypatch.setattr(clients_module, "_MOST_CLIENTS", 2)
    vaults = VaultClients(None, options("*"))
    with vaults.lease(storage("https://busy.example")):
        for number in range(5):
            with vaults.lease(storage(f"https://v{number}.example")):
                pass
        assert "busy.example" not in closed
        assert closed == ["v0.example", "v1.example", "v2.example", "v3.example"]
    vaults.close()
    assert min(closed) == "busy.example"


def test_many_threads_share_clients() -> None:
    vaults = VaultClients(None, options("*"))
    failures: list[Exception] = []

    def use(number: int) -> None:
        try:
            for step in range(50):
                with vaults.lease(storage(f"https://v{(number + step) % 20}.example")):
                    pass
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(vaults._kept) <= 16
    vaults.close()
