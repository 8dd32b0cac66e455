"""Recordings that are still on their way: shorter than their event says, and growing."""

from __future__ import annotations

import threading
from collections import OrderedDict

from vault_ml.errors import RecordingIncomplete

# Recordings that wait at the same time. A forgotten one is looked at twice more.
_MOST_REMEMBERED = 4096


class Growth:
    """Remembers how long recordings were when they were last looked at. Thread-safe."""

    def __init__(self, patience_s: float) -> None:
        """Let a recording grow for `patience_s` before its tries count."""
        self._patience_s = patience_s
        self._sizes: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, key: str, source: str, size_bytes: int, announced_bytes: int | None) -> None:
        """Return when the recording is as long as its event says, or has stopped growing.

        An event may be wrong about the length (one that was sent again by hand says 1), so a
        difference alone means nothing: a recording that has the same length twice is complete.

        Args:
            key: of the recording.
            source: its storage provider.
            size_bytes: its length now.
            announced_bytes: its length as the event says.

        Raises:
            RecordingIncomplete: it differs, and may be growing.
        """
        name = (key, source)
        is_as_announced = announced_bytes is None or announced_bytes in {0, 1, size_bytes}
        with self._lock:
            before = self._sizes.pop(name, None)
            if is_as_announced or before == size_bytes:
                return
            self._sizes[name] = size_bytes
            if len(self._sizes) > _MOST_REMEMBERED:
                self._sizes.popitem(last=False)
        raise RecordingIncomplete(
            f"The recording has {size_bytes} bytes and its event says {announced_bytes}; it may "
            "still be on its way, so it is not ready yet.",
            patience_s=self._patience_s,
        )
