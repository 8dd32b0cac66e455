"""Which requests a broker understands, as far as librdkafka lets us know: in a line of its log."""

from __future__ import annotations

import logging
import re

_LINE = re.compile(r"ApiKey (\w+) \(-?\d+\) Versions (\d+)\.\.(\d+)")

# From this version on a transaction names the consumer's generation, so a consumer that lost its
# partitions cannot commit them any more (KIP-447, Kafka 2.5).
_FENCES_CONSUMERS = ("TxnOffsetCommit", 3)
# From this version on every transaction has an epoch of its own, so that a delayed message cannot
# fall into the next one (KIP-890, Kafka 4.0).
_FENCES_DELAYED = ("EndTxn", 5)


class ApiVersions(logging.Handler):
    """Listens to the log of a client with `debug=feature`.

    >>> heard = ApiVersions()
    >>> heard.hear("broker/1:   ApiKey TxnOffsetCommit (28) Versions 0..2")
    >>> heard.fences_consumers
    False
    """

    def __init__(self) -> None:
        """Begin knowing nothing."""
        super().__init__()
        self._highest: dict[str, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record of librdkafka."""
        self.hear(record.getMessage())

    def hear(self, line: str) -> None:
        """Take a line. Brokers of several ages make a cluster as old as its oldest."""
        if found := _LINE.search(line):
            name, highest = found[1], int(found[3])
            self._highest[name] = min(highest, self._highest.get(name, highest))

    @property
    def fences_consumers(self) -> bool:
        """False when a consumer without partitions could commit them in a transaction."""
        return self._is_at_least(*_FENCES_CONSUMERS)

    @property
    def fences_delayed(self) -> bool:
        """False when a delayed message could end up in a later transaction."""
        return self._is_at_least(*_FENCES_DELAYED)

    def _is_at_least(self, name: str, version: int) -> bool:
        return (
            self._highest.get(name, version) >= version
        )  # what was not said is not held against it
