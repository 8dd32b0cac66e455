"""Recordings by address: signed URLs, fetched with nothing of ours, whole or by ranges.

Every address here has passed the gate; what it redirects to passes it again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vault_ml.errors import (
    RecordingIncomplete,
    RecordingNotFound,
    VaultUnavailable,
)
from vault_ml.vault import protocol
from vault_ml.vault.addresses import Refused
from vault_ml.vault.gate import Gate, Passage
from vault_ml.vault.ranged import (
    HEAD_BYTES,
    Part,
    PartRefused,
    RangedRecording,
    WholeInstead,
)
from vault_ml.vault.recording import Recording, receive
from vault_ml.vault.transport import (
    REDIRECTS,
    Deadline,
    ExchangeFailed,
    Reply,
    Transport,
    Trouble,
    retry_after,
)

_MOST_REDIRECTS = 3
# A storage that only the Vault can reach (an on-premise Minio) costs one connection timeout; for
# this long its recordings then come through the Vault without another try.
_FORGET_UNREACHABLE_AFTER_S = 60.0
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)


class UrlRefused(Exception):
    """The storage refuses a signed URL; most likely it has expired."""

    def __init__(self, host: str, status: int) -> None:
        """Keep both for a sentence."""
        super().__init__(f"{host} answers {status}")
        self.host = host
        self.status = status


class Unusable(Exception):
    """Nothing can be fetched from this address from here; the text says why, without it."""

    def __init__(self, detail: str, *, is_refused: bool = False) -> None:
        """`is_refused` says that we would not connect, not that we could not."""
        super().__init__(detail)
        self.is_refused = is_refused


class NoConnection(Exception):
    """There is no connection to the host at all."""

    def __init__(self, detail: str, *, is_refused: bool) -> None:
        """`detail` is a clause for a sentence; `is_refused` says that we would not connect."""
        super().__init__(detail)
        self.detail = detail
        self.is_refused = is_refused


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """Limits on fetching; see `VaultOptions`."""

    timeout_s: float
    max_bytes: int
    work_dir: Path | None


class Storages:
    """Whatever storages signed URLs lead to. Thread-safe."""

    def __init__(self, transport: Transport, gate: Gate, options: TransferOptions) -> None:
        """Fetch through `transport`, behind `gate`."""
        self._transport = transport
        self._gate = gate
        self._options = options
        self._unreachable_until: dict[str, float] = {}

    def fetch(self, passage: Passage) -> Recording:
        """The whole recording at an address.

        Raises:
            UrlRefused: the storage refuses the address.
            Unusable: it cannot be fetched from here; another way may do.
            RecordingNotFound: the storage does not have it.
            VaultUnavailable: the storage is away.
            RecordingIncomplete, RecordingTooLarge, ...: see `vault.recording.receive`.
        """
        deadline = Deadline(self._options.timeout_s)
        with self._answer(passage, {}, deadline) as (reply, final):
            if reply.status != 200:
                raise Unusable(f"the storage at {_host(final)} answers {reply.status}")
            return self._receive(reply, final)

    def open(
        self, passage: Passage, renew: Callable[[], Passage | None], *, ranges_from_bytes: int
    ) -> Recording | RangedRecording:
        """The recording at an address, by ranges where that works and pays.

        Args:
            passage: the address.
            renew: a fresh address of the same recording, for when this one expires.
            ranges_from_bytes: a smaller recording is fetched whole.

        Raises:
            As `fetch`.
        """
        deadline = Deadline(self._options.timeout_s)
        asked = {"Range": f"bytes=0-{HEAD_BYTES - 1}".encode()}
        with self._answer(passage, asked, deadline) as (reply, final):
            if reply.status == 200:  # it knows no ranges, and has begun to send all of it
                return self._receive(reply, final)
            if reply.status == 416:
                raise RecordingIncomplete(
                    f"The storage at {_host(final)} has a recording that is empty so far; it may "
                    "still be on its way there."
                )
            if reply.status != 206:
                raise Unusable(f"the storage at {_host(final)} answers {reply.status}")
            try:
                head = _part(reply, 0, HEAD_BYTES)
            except WholeInstead:
                head = None
        if head is None:
            return self.fetch(final)
        source = _RangeSource(self, final, renew, deadline)
        recording = RangedRecording(
            source,
            head,
            who=f"The storage at {_host(final)}",
            max_bytes=self._options.max_bytes,
            work_dir=self._options.work_dir,
        )
        if recording.size_bytes < ranges_from_bytes:
            try:
                recording.read_at(0, recording.size_bytes)
            except BaseException:
                recording.close()
                raise
        return recording

    def part(
        self,
        passage: Passage,
        first: int,
        size: int,
        guard: Mapping[str, bytes],
        deadline: Deadline,
    ) -> Part:
        """The bytes from `first` on.

        Raises:
            PartRefused: the storage refuses the address, or has another recording there now.
            As `fetch`.
        """
        asked = {"Range": f"bytes={first}-{first + size - 1}".encode(), **guard}
        try:
            with self._answer(passage, asked, deadline) as (reply, final):
                if reply.status in {200, 412, 416}:
                    raise PartRefused(is_changed=True)
                if reply.status != 206:
                    raise VaultUnavailable(
                        f"The storage at {_host(final)} answers {reply.status} in the middle of a "
                        "recording; look at its state."
                    )
                try:
                    return _part(reply, first, size)
                except WholeInstead:
                    raise PartRefused(is_changed=True) from None
        except UrlRefused:
            raise PartRefused(is_changed=False) from None
        except Unusable as error:
            raise VaultUnavailable(
                f"A storage cannot be read any more in the middle of a recording: {error}."
            ) from None

    @contextmanager
    def _answer(
        self, passage: Passage, headers: Mapping[str, bytes], deadline: Deadline
    ) -> Iterator[tuple[Reply, Passage]]:
        """The reply of a storage, redirects followed, and the address that gave it."""
        for _ in range(_MOST_REDIRECTS + 1):
            host = _host(passage)
            if self._is_unreachable(host):
                raise Unusable(f"the storage at {host} could not be reached a moment ago")
            try:
                with (
                    transfer_errors(f"The storage at {host}"),
                    self._transport.exchange(
                        "GET", passage.url, headers, deadline=deadline, reach=passage.reach
                    ) as reply,
                ):
                    if reply.status not in REDIRECTS:
                        _judge(reply, host)
                        yield reply, passage
                        return
                    location = reply.headers.get("location", "")
            except NoConnection as failure:
                if not failure.is_refused:
                    self._forget_for_a_while(host)
                detail = f"the storage at {host}: {failure.detail}"
                raise Unusable(detail, is_refused=failure.is_refused) from failure
            try:
                target = protocol.redirect_target(passage.url, location)
                passage = self._gate.redirected(passage, target)
            except Refused as refused:
                detail = f"the storage at {host} redirects elsewhere, but {refused}"
                raise Unusable(detail, is_refused=True) from None
        raise Unusable(f"the storage at {host} redirects without end")

    def _forget_for_a_while(self, host: str) -> None:
        now = time.monotonic()
        for other in [name for name, until in self._unreachable_until.items() if until < now]:
            self._unreachable_until.pop(other, None)
        self._unreachable_until[host] = now + _FORGET_UNREACHABLE_AFTER_S

    def _is_unreachable(self, host: str) -> bool:
        return time.monotonic() < self._unreachable_until.get(host, 0.0)

    def _receive(self, reply: Reply, passage: Passage) -> Recording:
        return receive(
            reply,
            who=f"The storage at {_host(passage)}",
            route="signed_url",
            max_bytes=self._options.max_bytes,
            work_dir=self._options.work_dir,
        )


class _RangeSource:
    """Where a ranged recording gets its parts: an address that is renewed when it expires."""

    def __init__(
        self,
        storages: Storages,
        passage: Passage,
        renew: Callable[[], Passage | None],
        deadline: Deadline,
    ) -> None:
        self._storages = storages
        self._passage = passage
        self._renew = renew
        self._deadline = deadline

    def part(self, first: int, size: int, guard: Mapping[str, bytes]) -> Part:
        return self._storages.part(self._passage, first, size, guard, self._deadline)

    def renew(self) -> bool:
        fresh = self._renew()
        if fresh is None:
            return False
        self._passage = fresh
        return True


# --- judging -------------------------------------------------------------------------------------


@contextmanager
def transfer_errors(who: str) -> Iterator[None]:
    """What a failed transfer of a recording means. `who` begins the sentence.

    Raises:
        NoConnection: it did not even begin.
        RecordingIncomplete: it was cut off, or took too long.
        VaultUnavailable: the other side fell silent.
    """
    try:
        yield
    except ExchangeFailed as failure:
        if failure.trouble in {Trouble.NO_CONNECTION, Trouble.REFUSED}:
            is_refused = failure.trouble is Trouble.REFUSED
            raise NoConnection(str(failure), is_refused=is_refused) from failure
        if failure.trouble in {Trouble.CUT_OFF, Trouble.OUT_OF_TIME}:
            # This recording's trouble: a trickle must not hold up all the others for ever.
            raise RecordingIncomplete(
                f"{who} did not send the whole recording ({failure}); it is fetched again later.",
                is_broken_off=failure.trouble is Trouble.CUT_OFF,
            ) from failure
        raise VaultUnavailable(
            f"{who} stopped in the middle ({failure}); check the network and its log."
        ) from failure


def _judge(reply: Reply, host: str) -> None:
    """Raise what a storage's refusal means; return for what the caller must look at."""
    status = reply.status
    if protocol.is_unavailable(status):
        raise VaultUnavailable(
            f"The storage at {host} cannot answer now (status {status}); look at its state.",
            retry_after_s=retry_after(reply),
        )
    if status in {400, 401, 403}:
        raise UrlRefused(host, status)
    if status in {404, 410}:
        raise RecordingNotFound(
            f"The storage at {host} does not have this recording (yet); "
            "it may have been removed, or not be stored completely."
        )


def _host(passage: Passage) -> str:
    return protocol.host_of(passage.url)


def _part(reply: Reply, first: int, size: int) -> Part:
    """The body of a 206, checked against what was asked.

    Raises:
        WholeInstead: what was sent is not a plain range of bytes that begins at `first`.
        ExchangeFailed: it broke off.
    """
    found = _CONTENT_RANGE.fullmatch(reply.headers.get("content-range", "").strip())
    encoding = reply.headers.get("content-encoding", "identity").strip().lower()
    if found is None or encoding not in {"", "identity"}:
        raise WholeInstead
    start, last, total = (int(number) for number in found.groups())
    wanted_last = min(first + size, total) - 1
    if start != first or last != wanted_last or last < start:
        raise WholeInstead
    content = bytearray()
    for piece in reply.pieces():
        content += piece
        if len(content) > size:
            raise WholeInstead
    if len(content) != last - start + 1:
        raise ExchangeFailed(Trouble.CUT_OFF, "the body ended too early")
    return Part(
        bytes(content),
        total_bytes=total,
        etag=reply.headers.get("etag", ""),
        last_modified=reply.headers.get("last-modified", ""),
    )
