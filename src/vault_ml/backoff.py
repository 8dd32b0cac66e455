"""How long to wait before the next try."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Capped exponential backoff with jitter.

    Attributes:
        first_s: the wait before the second try, seconds.
        cap_s: no wait is longer than this.
    """

    first_s: float
    cap_s: float

    def wait_s(self, attempt: int) -> float:
        """Seconds to wait after `attempt` (1-based) failed: half of it fixed, half random.

        The random half keeps a hundred events that failed together from coming back together.
        """
        full = min(self.cap_s, self.first_s * 2.0 ** min(attempt - 1, 30))
        return full / 2 + random.uniform(0, full / 2)  # noqa: S311  # jitter, not a secret
