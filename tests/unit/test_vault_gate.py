"""Who may name what: the configured Vault, a Vault from an event, a message, a redirect."""

from __future__ import annotations

import pytest

from vault_ml.vault.addresses import Origins, Reach, Reason, Refused
from vault_ml.vault.gate import Gate

NONE, ANY = Origins(), Origins.parse(["*"])
MINIO = "http://10.0.0.5:9000/bucket/x?X-Signature=1"


def refusal(call: object, *arguments: object) -> Reason:
    with pytest.raises(Refused) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.reason


def test_a_message_may_name_nothing_by_default() -> None:
    gate = Gate("https://vault.example/api", NONE, is_configured=True)
    assert refusal(gate.from_message, "https://s3.example/x") is Reason.NOT_ALLOWED
    assert gate.from_message("https://vault.example/api/storage/signed?s=1").is_from_message


def test_what_the_configured_vault_has_named_a_message_may_name_too() -> None:
    gate = Gate("https://vault.example/api", NONE, is_configured=True)
    assert refusal(gate.from_message, MINIO) is Reason.NOT_ALLOWED
    assert gate.from_vault(MINIO).reach is Reach.PRIVATE
    assert gate.from_message(MINIO).reach is Reach.PRIVATE
    assert refusal(gate.from_message, "http://10.0.0.5:9001/x") is Reason.NOT_ALLOWED


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://169.254.169.254/latest", Reason.METADATA),
        ("http://169.254.7.7/", Reason.LINK_LOCAL),
        ("http://metadata.google.internal/", Reason.METADATA),
        ("http://127.0.0.1:9000/x", Reason.LOOPBACK),
        ("http://localhost:9000/x", Reason.LOCAL_NAME),
        ("http://0.0.0.0/x", Reason.RESERVED),
        ("ftp://s3.example/x", Reason.SCHEME),
    ],
)
def test_not_even_the_configured_vault_may_name_everything(url: str, reason: Reason) -> None:
    gate = Gate("https://vault.example", ANY, is_configured=True)
    assert refusal(gate.from_vault, url) is reason


@pytest.mark.parametrize("vault", ["http://127.0.0.1:8080", "http://localhost/api", "http://[::1]"])
def test_a_vault_on_this_machine_may_name_this_machine(vault: str) -> None:
    gate = Gate(vault, NONE, is_configured=True)
    assert gate.from_vault("http://127.0.0.1:9000/x").reach is Reach.LOCAL
    assert refusal(gate.from_vault, "http://169.254.169.254/") is Reason.METADATA


def test_a_listed_origin_may_be_private() -> None:
    gate = Gate(
        "https://vault.example", Origins.parse(["http://10.0.0.5:9000"]), is_configured=True
    )
    assert gate.from_message(MINIO).reach is Reach.PRIVATE
    gate = Gate("https://vault.example", ANY, is_configured=True)
    assert refusal(gate.from_message, MINIO) is Reason.PRIVATE
    assert gate.from_message("https://s3.example/x").reach is Reach.PUBLIC


def test_a_vault_that_a_message_names_must_be_allowed() -> None:
    with pytest.raises(Refused):
        Gate("https://hub.example/api", NONE, is_configured=False)
    with pytest.raises(Refused):
        Gate("http://10.0.0.9/api", ANY, is_configured=False)
    assert Gate("https://hub.example/api", ANY, is_configured=False).api_reach is Reach.PUBLIC
    listed = Origins.parse(["http://10.0.0.9"])
    gate = Gate("http://10.0.0.9/api", listed, is_configured=False)
    assert gate.api_reach is Reach.PRIVATE
    # Its own host, and the Internet; not its neighbours.
    assert gate.from_vault("http://10.0.0.9:9000/x").reach is Reach.PRIVATE
    assert gate.from_vault("https://s3.example/x").reach is Reach.PUBLIC
    assert refusal(gate.from_vault, "http://10.0.0.10/x") is Reason.PRIVATE
    assert refusal(gate.from_message, "https://s3.example/x") is Reason.NOT_ALLOWED
    assert Gate("https://vault.example", NONE, is_configured=True).api_reach is None


def test_a_redirect_is_judged_like_what_it_came_from() -> None:
    gate = Gate("https://vault.example", NONE, is_configured=True)
    named = gate.from_vault("http://10.0.0.5:9000/x")
    assert gate.redirected(named, "https://10.0.0.5/x").reach is Reach.PRIVATE
    assert gate.redirected(named, "https://cdn.example/x").reach is Reach.PUBLIC
    assert gate.redirected(named, "https://vault.example/x").reach is Reach.PRIVATE
    assert refusal(gate.redirected, named, "http://10.0.0.6/x") is Reason.PRIVATE
    assert refusal(gate.redirected, named, "http://127.0.0.1/x") is Reason.LOOPBACK
    assert refusal(gate.redirected, named, "http://169.254.169.254/") is Reason.METADATA
    assert refusal(gate.redirected, named, "file:///etc/passwd") is Reason.SCHEME
    told = gate.from_message("http://10.0.0.5:9000/x")
    assert refusal(gate.redirected, told, "https://cdn.example/x") is Reason.NOT_ALLOWED
    gate = Gate("https://vault.example", ANY, is_configured=True)
    told = gate.from_message("https://s3.example/x")
    assert gate.redirected(told, "https://cdn.example/x").is_from_message
    assert refusal(gate.redirected, told, "http://10.0.0.5/x") is Reason.PRIVATE


def test_only_so_many_origins_are_remembered() -> None:
    gate = Gate("https://vault.example", NONE, is_configured=True)
    for number in range(300):
        gate.from_vault(f"https://bucket{number}.example/x")
    assert gate.from_message("https://bucket299.example/x").reach is Reach.PRIVATE
    assert refusal(gate.from_message, "https://bucket1.example/x") is Reason.NOT_ALLOWED


def test_a_passage_does_not_show_its_address() -> None:
    gate = Gate("https://vault.example", NONE, is_configured=True)
    assert "X-Signature" not in repr(gate.from_vault(MINIO))
