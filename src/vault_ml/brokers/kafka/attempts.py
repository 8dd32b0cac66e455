"""How often an event was tried, kept in Kafka itself.

Kafka counts no deliveries. Every commit may carry a short text, so the attempts of what is not
finished travel there, and a restart or another replica goes on counting.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

# Brokers take 4096 bytes (`offset.metadata.max.bytes`).
METADATA_LIMIT_BYTES = 4000
_NAME = "vault-ml"


@dataclass(frozen=True, slots=True)
class Attempt:
    """The count of one event.

    Attributes:
        number: 1 for the first try.
        first_received_at: Unix seconds of the first try.
    """

    number: int
    first_received_at: float


def encode(attempts: Mapping[int, Attempt], limit_bytes: int = METADATA_LIMIT_BYTES) -> str:
    """Attempts by offset as a text of at most `limit_bytes` ASCII characters.

    When there are too many, the highest counts are kept: they are nearest to giving up, and what
    is forgotten is tried more often, never less.

    >>> encode({7: Attempt(2, 1700000000.0)})
    '{"vault-ml":{"7":[2,1700000000]}}'
    """
    if not attempts:
        return ""
    by_worth = sorted(attempts.items(), key=lambda item: (-item[1].number, item[0]))
    size = len('{"":{}}') + len(_NAME)
    kept: dict[str, list[int]] = {}
    for offset, attempt in by_worth:
        entry = [attempt.number, int(attempt.first_received_at)]
        size += len(f'"{offset}":[{entry[0]},{entry[1]}],')
        if size > limit_bytes:
            break
        kept[str(offset)] = entry
    return json.dumps({_NAME: kept}, separators=(",", ":")) if kept else ""


def decode(text: str | None) -> dict[int, Attempt]:
    """The attempts in a commit's text; none in a text that is not ours.

    >>> decode('{"vault-ml":{"7":[2,1700000000]}}')
    {7: Attempt(number=2, first_received_at=1700000000.0)}
    >>> decode("somebody else's note")
    {}
    """
    try:
        entries = json.loads(text or "{}")[_NAME].items()
        return {
            int(offset): Attempt(max(1, int(number)), float(first))
            for offset, (number, first) in entries
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return {}
