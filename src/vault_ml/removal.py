"""Step 11: remove a recording from the Vault, after its event is really settled.

Removing waits for the settlement, not the other way round: a crash between the two leaves a
recording too many in the Vault, never one too few. It has a thread of its own, because a
settlement may come long after its recording thread has gone on (on Kafka: when the committed
prefix of the partition has passed it).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from vault_ml.errors import VaultMLError
from vault_ml.event import RecordingEvent, Storage
from vault_ml.failpoints import reach
from vault_ml.outage import Outages, Stopping
from vault_ml.telemetry.log import Log
from vault_ml.telemetry.tracing import NO_TRACE, Trace
from vault_ml.vault.clients import VaultClients


@dataclass(frozen=True, slots=True)
class _Removal:
    key: str
    source: str
    storage: Storage | None
    then: Callable[[], None]
    trace: Trace


class Removals:
    """Recordings that wait to be removed, and the thread that removes them."""

    def __init__(
        self,
        vaults: VaultClients,
        outages: Outages,
        *,
        on_removed: Callable[[], None],
        log: Log,
    ) -> None:
        """Remove through `vaults`; waits out outages of the configured one."""
        self._vaults = vaults
        self._outages = outages
        self._on_removed = on_removed
        self._log = log
        self._waiting: queue.SimpleQueue[_Removal | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="removals", daemon=True)
        self._left = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def after(
        self,
        settled: Future[None],
        event: RecordingEvent,
        then: Callable[[], None] = lambda: None,
        trace: Trace = NO_TRACE,
    ) -> None:
        """Remove the event's recording once `settled` is done; not when the settlement was lost.

        Args:
            settled: of the event.
            event: names the recording.
            then: called when it is gone.
            trace: of the recording.
        """
        # Not the event itself: it would be kept in memory until the settlement.
        removal = _Removal(event.key, event.source, event.storage, then, trace)

        def decide(future: Future[None]) -> None:
            if future.cancelled() or future.exception() is not None:
                # Somebody else will get this event again, and needs the recording.
                self._log.info(
                    "removal_dropped", key=removal.key, reason="the event will come again"
                )
            else:
                reach("settled")
                self._waiting.put(removal)

        settled.add_done_callback(decide)

    def close(self, timeout_s: float) -> None:
        """Remove what is waiting, as far as `timeout_s` allows, and say what stays behind."""
        self._waiting.put(None)
        self._thread.join(timeout_s)
        stay = self._left + self._waiting.qsize()
        if self._thread.is_alive() or stay:
            self._log.warning(
                "removals_left",
                recordings=max(stay, 1),
                reason="the worker stopped first; these recordings stay in the Vault",
            )

    def _run(self) -> None:
        while (removal := self._waiting.get()) is not None:
            started = time.perf_counter()
            reach("remove.before")
            try:
                with removal.trace.room("remove"):
                    self._remove(removal)
            except Stopping:
                self._left += 1
            except VaultMLError as error:
                # The result is out and the event settled: a recording too many is all that is left.
                self._log.warning("removal_failed", key=removal.key, reason=str(error))
            else:
                reach("remove.after")
                self._on_removed()
                removal.then()
                self._log.info(
                    "recording_removed",
                    key=removal.key,
                    seconds=round(time.perf_counter() - started, 3),
                )

    def _remove(self, removal: _Removal) -> None:
        with self._vaults.lease(removal.storage) as lease:
            source = lease.provider or removal.source
            self._outages.patiently(
                "vault",
                lambda: lease.run(lambda vault: vault.remove(removal.key, source)),
                probe=lease.vault.ping if lease.is_own else None,
            )
