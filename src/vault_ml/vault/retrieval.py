"""The ways to a recording, in order, until one gives it.

The event's own signed URL, a URL that the Vault signs now, through the Vault itself, and the same
two at the secondary providers: Vaults of every age know at least one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from vault_ml.errors import (
    AddressRefused,
    PoisonError,
    RecordingIncomplete,
    RecordingNotFound,
    RecordingTooLarge,
    RetryableError,
    SignedUrlExpired,
    UnavailableError,
    UndecodableRecording,
    VaultMLError,
    VaultUnavailable,
)
from vault_ml.vault import protocol
from vault_ml.vault.addresses import Refused
from vault_ml.vault.api import Api
from vault_ml.vault.gate import Gate, Passage
from vault_ml.vault.ranged import RangedRecording
from vault_ml.vault.recording import Recording, receive
from vault_ml.vault.storage import (
    NoConnection,
    Storages,
    TransferOptions,
    Unusable,
    UrlRefused,
    transfer_errors,
)
from vault_ml.vault.transport import Deadline, Transport

# A recording that can be read: all of it is here, or the part that was looked at.
Opened = Recording | RangedRecording
# How an address becomes a recording; the second argument gets a fresh address of the same one.
_ByUrl = Callable[[Passage, Callable[[], Passage | None]], Opened]
# Events name one or two. More would let one event ask the Vault for ever.
_MOST_SECONDARY = 4


class Retrieval:
    """Recordings of one Vault, by every way that leads to them. Thread-safe."""

    def __init__(
        self, api: Api, transport: Transport, gate: Gate, options: TransferOptions
    ) -> None:
        """Ask `api`, and call the addresses that pass `gate`."""
        self._api = api
        self._gate = gate
        self._options = options
        self._storages = Storages(transport, gate, options)

    def fetch(self, headers: Sequence[Mapping[str, bytes]], *, signed_url: str | None) -> Recording:
        """The recording, whole; see `VaultClient.fetch`.

        Args:
            headers: for the API, one set per storage provider, in order.
            signed_url: the event's.
        """
        ways = self._ways(headers, signed_url, lambda passage, _: self._storages.fetch(passage))
        found = _first_that_works(ways)
        assert isinstance(found, Recording)  # only `open` is given ranges
        return found

    def open(
        self,
        headers: Sequence[Mapping[str, bytes]],
        *,
        signed_url: str | None,
        ranges_from_bytes: int,
    ) -> Opened:
        """The recording, by ranges where possible; see `VaultClient.open`.

        Args:
            headers: as `fetch`.
            signed_url: the event's.
            ranges_from_bytes: a smaller recording is fetched whole.
        """

        def by_url(passage: Passage, renew: Callable[[], Passage | None]) -> Opened:
            return self._storages.open(passage, renew, ranges_from_bytes=ranges_from_bytes)

        return _first_that_works(self._ways(headers, signed_url, by_url))

    def _ways(
        self, headers: Sequence[Mapping[str, bytes]], signed_url: str | None, by_url: _ByUrl
    ) -> Iterator[Callable[[], Opened | None]]:
        """Every way to the recording, in order. Each gives it, gives nothing, or raises."""
        if signed_url is not None:
            yield lambda: self._by_message(signed_url, headers[0], by_url)
        for one in headers[: 1 + _MOST_SECONDARY]:
            yield lambda one=one: self._at_provider(one, by_url)  # type: ignore[misc]  # mypy cannot infer a lambda with a default

    def _by_message(self, url: str, headers: Mapping[str, bytes], by_url: _ByUrl) -> Opened | None:
        """By the URL that came in the event."""
        try:
            return by_url(self._gate.from_message(url), lambda: self._passage(headers))
        except Refused as refused:
            raise AddressRefused(f"The event's signed URL is not called: {refused}.") from None
        except Unusable as unusable:
            if unusable.is_refused:
                raise AddressRefused(f"The event's signed URL is not called: {unusable}.") from None
            return None
        except UrlRefused:  # it has expired; the Vault is asked for a fresh one next
            return None

    def _at_provider(self, headers: Mapping[str, bytes], by_url: _ByUrl) -> Opened:
        """From one storage provider: by signed URL, else through the Vault itself."""
        try:
            found = self._by_signed_url(headers, by_url)
        except SignedUrlExpired as expired:
            try:
                return self._fetch_blob(headers)
            except RecordingNotFound:  # also what a Vault without this route answers
                raise expired from None
        return self._fetch_blob(headers) if found is None else found

    def _by_signed_url(self, headers: Mapping[str, bytes], by_url: _ByUrl) -> Opened | None:
        """By a URL that the Vault signs now, and by another one when that is refused."""
        for is_last in (False, True):
            passage = self._passage(headers)
            if passage is None:
                return None
            try:
                return by_url(passage, lambda: self._passage(headers))
            except UrlRefused as refusal:
                if is_last:
                    raise SignedUrlExpired(
                        f"The storage at {refusal.host} refuses ({refusal.status}) the URL that "
                        f"Vault at {self._api.host} has just signed; check the clocks of both and "
                        "of the Vault's host."
                    ) from None
            except Unusable:
                return None
        raise AssertionError("unreachable: the second try returns or raises")

    def _passage(self, headers: Mapping[str, bytes]) -> Passage | None:
        """A signed URL of the Vault's that may be called, or None."""
        reply = self._api.call("GET", protocol.STORAGE, headers)
        # A Vault that cannot sign answers in several ways, a plain 404 among them; then the blob
        # route has the last word on whether the recording is there.
        if reply.status in {400, 404, 405, 501}:
            return None
        self._api.require_success(reply, "to give this recording.")
        url = protocol.signed_url(reply.small_body())
        if url is None:
            return None
        try:
            return self._gate.from_vault(url)
        except Refused:
            return None

    def _fetch_blob(self, headers: Mapping[str, bytes]) -> Recording:
        who = f"Vault at {self._api.host}"
        deadline = Deadline(self._options.timeout_s)
        try:
            with (
                transfer_errors(who),
                self._api.open("GET", protocol.BLOB, headers, None, deadline) as reply,
            ):
                if reply.status == 200 and not protocol.is_web_page(reply.content_type):
                    return receive(
                        reply,
                        who=who,
                        route="blob",
                        max_bytes=self._options.max_bytes,
                        work_dir=self._options.work_dir,
                    )
        except NoConnection as failure:
            raise self._api.no_connection(
                failure.detail, is_refused=failure.is_refused
            ) from failure
        self._api.require_success(reply, "to give this recording.")
        raise VaultUnavailable(
            f"Vault at {self._api.host} answers {reply.status} instead of a recording; "
            "look at its log and at the proxy in front of it."
        )


def _first_that_works(ways: Iterator[Callable[[], Opened | None]]) -> Opened:
    """The recording by the first way that gives it.

    Raises:
        What the first way raised, an outage before what may pass, and that before what will not:
        a recording that one storage does not have may be in the one that is away.
    """
    troubles: list[VaultMLError] = []
    for way in ways:
        try:
            found = way()
        except (RecordingTooLarge, RecordingIncomplete, UndecodableRecording):
            raise  # it is there, and what is wrong with it is known
        except (UnavailableError, RetryableError, PoisonError) as trouble:
            if type(trouble) is UnavailableError:
                raise  # ours: there is no room here
            troubles.append(trouble)
        else:
            if found is not None:
                return found
    for kind in (UnavailableError, RetryableError, PoisonError):
        for known in troubles:
            if isinstance(known, kind):
                raise known
    raise AssertionError("unreachable: the last way gives the recording or raises")
