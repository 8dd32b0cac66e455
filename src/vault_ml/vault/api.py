"""Calls to the Vault's API: where it lives, what its refusals mean.

The API may stand at the configured address or below `/api` there, and behind a web page that
answers every other path with 200. So its root is found by asking, remembered, and looked for again
when an answer no longer comes from it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NoReturn
from urllib.parse import urlsplit

from vault_ml.errors import (
    AddressRefused,
    ConfigError,
    RecordingNotFound,
    RecordingRefused,
    RetryableError,
    SinkUnavailable,
    VaultMLError,
    VaultUnavailable,
)
from vault_ml.vault import protocol
from vault_ml.vault.addresses import Reach
from vault_ml.vault.protocol import Standing
from vault_ml.vault.transport import (
    REDIRECTS,
    Deadline,
    ExchangeFailed,
    Reply,
    Transport,
    Trouble,
    retry_after,
)

# What is sent: bytes, or a function that begins it anew (a call may have to be repeated).
Content = bytes | Callable[[], Iterable[bytes]] | None


class Api:
    """The API of one Vault, spoken to with one account's keys. Thread-safe."""

    def __init__(
        self,
        roots: Sequence[str],
        credentials: Mapping[str, bytes],
        transport: Transport,
        *,
        call_timeout_s: float,
        is_from_event: bool = False,
        reach: Reach | None = None,
    ) -> None:
        """Look for the API under `roots`, in this order, when it is first needed.

        Args:
            roots: from `protocol.api_roots`.
            credentials: the header of either key.
            transport: stays the caller's to close.
            call_timeout_s: for a whole call that moves no recording.
            is_from_event: address and keys came in an event.
            reach: what the host may resolve to; None for anything.
        """
        self._is_from_event = is_from_event
        self._reach = reach
        self.host = protocol.host_of(roots[0])
        self._roots = tuple(roots)
        self._credentials = dict(credentials)
        self._transport = transport
        self._call_timeout_s = call_timeout_s
        self._root_lock = threading.Lock()
        self._root = self._roots[0] if len(self._roots) == 1 else None
        self.clock_ahead_s: float | None = None  # ours, of the Vault's, at its last answer

    # --- one call --------------------------------------------------------------------------------

    def call(
        self,
        method: str,
        route: str,
        headers: Mapping[str, bytes],
        content: Content = None,
        *,
        deadline: Deadline | None = None,
        is_forward: bool = False,
    ) -> Reply:
        """One exchange with the API; the reply holds its small body and is closed.

        Args:
            method: HTTP method.
            route: below the root.
            headers: all of them, credentials included.
            content: what is sent.
            deadline: for all of it; the time for a call when None.
            is_forward: no answer then means that a sink is away.

        Raises:
            VaultUnavailable, SinkUnavailable: no answer, or the API is nowhere now.
        """
        deadline = deadline or Deadline(self._call_timeout_s)
        try:
            with self.open(method, route, headers, content, deadline) as reply:
                reply.small_body()
                return reply
        except ExchangeFailed as failure:
            raise self.no_connection(
                str(failure),
                is_forward=is_forward,
                is_refused=failure.trouble is Trouble.REFUSED,
            ) from failure

    @contextmanager
    def open(
        self,
        method: str,
        route: str,
        headers: Mapping[str, bytes],
        content: Content,
        deadline: Deadline,
    ) -> Iterator[Reply]:
        """An exchange below the API's root, which is looked for again when it has moved.

        What is no success has had its small body read, so the reply can be judged after closing.

        Raises:
            ExchangeFailed: no connection, or no whole answer.
            VaultUnavailable: the API is nowhere now.
        """
        root = self._known_root()
        for is_last in (False, True):
            body = content() if callable(content) else content
            with self._transport.exchange(
                method,
                root + route,
                headers,
                deadline=deadline,
                content=body,
                reach=self._reach,
            ) as reply:
                is_success = 200 <= reply.status < 300
                start = b"" if is_success else reply.small_body()
                if is_last or not protocol.is_wrong_root(reply.status, reply.content_type, start):
                    yield reply
                    return
                reply.small_body()
            before, root = root, self._known_root(moved_from=root)
            if root == before:
                yield reply
                return

    def no_connection(
        self, detail: str, *, is_forward: bool = False, is_refused: bool = False
    ) -> VaultMLError:
        """The error for "no answer"; `detail` says how. `is_refused`: we would not connect."""
        if is_refused:
            return AddressRefused(
                f"The Vault at {self.host} that the event names is not called: {detail}. If it is "
                "yours, add its address to MESSAGE_VAULT_ORIGINS."
            )
        kind = SinkUnavailable if is_forward else VaultUnavailable
        what = "its address in the event" if self._is_from_event else "VAULT_API_URL"
        return kind(
            f"Vault at {self.host} does not answer ({detail}); "
            f"check {what} and that the Vault is running."
        )

    def require_success(self, reply: Reply, what: str, *, is_forward: bool = False) -> None:
        """Return for a success, else raise what its status means.

        Args:
            reply: closed, its small body read.
            what: completes `Vault at ... refuses`.
            is_forward: what is away is then a sink.

        Raises:
            RecordingNotFound, RecordingRefused, RetryableError: this recording.
            VaultUnavailable, SinkUnavailable: the Vault.
        """
        status = reply.status
        if protocol.is_unavailable(status):
            kind = SinkUnavailable if is_forward else VaultUnavailable
            raise kind(
                f"Vault at {self.host} cannot answer now (status {status}); "
                "look at its log and at its storage provider.",
                retry_after_s=retry_after(reply),
            )
        if status in REDIRECTS:
            raise VaultUnavailable(self._redirect_sentence(reply))
        if protocol.is_web_page(reply.content_type):
            raise VaultUnavailable(self._nothing_there_sentence())
        if status in {401, 403}:
            self._explain_refusal(status)
        if status in {404, 410}:
            raise RecordingNotFound(
                f"Vault at {self.host} does not have this recording (yet); "
                "it may have been removed, or not be stored completely."
            )
        if not 200 <= status < 300:
            raise RecordingRefused(f"Vault at {self.host} refuses (status {status}) {what}")

    def _explain_refusal(self, status: int) -> NoReturn:
        """Tell a recording that is not ours from credentials that are no longer good."""
        try:
            standing = self.standing()
        except ConfigError as error:
            raise VaultUnavailable(str(error)) from error
        if standing is Standing.REFUSED and self._is_from_event:
            raise RecordingRefused(
                f"Vault at {self.host} rejects the credentials that came in the event "
                f"(status {status})."
            )
        if standing is Standing.REFUSED:
            raise VaultUnavailable(
                f"Vault at {self.host} rejects our credentials now (status {status}); "
                "put them right there, or in VAULT_ACCESS_KEY and VAULT_SECRET_KEY."
            )
        if standing is Standing.ACCEPTED:
            raise RecordingRefused(
                f"Vault at {self.host} knows our credentials but refuses this recording "
                f"(status {status}); is its storage provider bound to our account there?"
            )
        raise RetryableError(
            f"Vault at {self.host} refuses this recording (status {status}) and has no ping to "
            "ask whether our credentials are good; check both there."
        )

    # --- where the API is ------------------------------------------------------------------------

    def standing(self) -> Standing:
        """What the Vault thinks of our credentials now.

        Raises:
            ConfigError: there is no API at the configured address.
            VaultUnavailable: no answer, or "not now".
        """
        deadline = Deadline(self._call_timeout_s)
        root = self._root
        try:
            if root is not None:
                reply = self._ask(root, "POST", protocol.PING, deadline)
                standing = _standing_of(reply)
                if standing is Standing.AWAY:
                    self.require_success(reply, "a ping.")
                if standing is not Standing.NOT_THE_API:
                    return standing
            with self._root_lock:
                self._root, standing = self._search(deadline)
        except ExchangeFailed as failure:
            is_refused = failure.trouble is Trouble.REFUSED
            raise self.no_connection(str(failure), is_refused=is_refused) from failure
        return standing

    def _known_root(self, *, moved_from: str | None = None) -> str:
        """The API's root, looked for by one thread when it is not known or no longer there.

        Raises:
            VaultUnavailable: it is nowhere now.
            ExchangeFailed: there is no connection.
        """
        with self._root_lock:
            if self._root is None or self._root == moved_from:
                try:
                    self._root, _ = self._search(Deadline(self._call_timeout_s))
                except ConfigError as error:
                    raise VaultUnavailable(str(error)) from error
            return self._root

    def _search(self, deadline: Deadline) -> tuple[str, Standing]:
        away: Reply | None = None
        moved: Reply | None = None
        for root in self._roots:
            reply = self._ask(root, "POST", protocol.PING, deadline)
            standing = _standing_of(reply)
            if standing not in {Standing.AWAY, Standing.NOT_THE_API}:
                return root, standing
            away = reply if standing is Standing.AWAY else away
            moved = reply if reply.status in REDIRECTS else moved
        if away is not None:
            self.require_success(away, "a ping.")
        # Vaults from before the ping still say that they are healthy.
        for root in self._roots:
            reply = self._ask(root, "GET", protocol.HEALTH, deadline, with_credentials=False)
            if _standing_of(reply) is Standing.ACCEPTED:
                return root, Standing.UNKNOWN
        raise ConfigError(
            self._redirect_sentence(moved) if moved is not None else self._nothing_there_sentence()
        )

    def _ask(
        self,
        root: str,
        method: str,
        route: str,
        deadline: Deadline,
        *,
        with_credentials: bool = True,
    ) -> Reply:
        headers = {"Content-Type": b"application/json"}
        headers |= self._credentials if with_credentials else {}
        content = b"" if method == "POST" else None
        with self._transport.exchange(
            method,
            root + route,
            headers,
            deadline=deadline,
            content=content,
            reach=self._reach,
        ) as reply:
            reply.small_body()
            self.clock_ahead_s = protocol.clock_ahead_s(
                reply.headers.get("date"), datetime.now(UTC)
            )
            return reply

    def _nothing_there_sentence(self) -> str:
        tried = " and ".join(urlsplit(root).path or "/" for root in self._roots)
        return (
            f"There is no Vault API at {self.host} (tried {tried}): what answers is a web page or "
            "does not know the path. Check VAULT_API_URL and VAULT_API_PREFIX."
        )

    def _redirect_sentence(self, reply: Reply) -> str:
        location = reply.headers.get("location", "")
        target = protocol.redirect_target(self._roots[0], location)
        origin = f"{target.partition(':')[0]}://{protocol.host_of(target)}"
        elsewhere = origin if protocol.is_fetchable(target) else "elsewhere"
        return (
            f"Vault at {self.host} redirects to {elsewhere}, and our credentials do not follow "
            "redirects. Set VAULT_API_URL to the right address."
        )


def _standing_of(reply: Reply) -> Standing:
    return protocol.ping_standing(reply.status, reply.content_type, reply.small_body())
