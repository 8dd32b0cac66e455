"""How many messages the broker may hand us, while some of them only wait for their next try.

A waiting message keeps its lease, and so a place of the prefetch. A prefetch cannot be changed
while a consumer lives, so more room comes from another consumer on the same channel, and goes with
it. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# Beyond this many waiting messages nothing new is taken: it bounds memory, and what a crash
# repeats.
_MOST_WAITING = 2000


@dataclass(slots=True)
class Prefetch:
    """The consumers on our channel.

    Attributes:
        base: messages that can be worked on at once.
    """

    base: int
    _consumers: list[tuple[str, int]] = field(default_factory=list)  # tag, prefetch
    _made: int = 0

    @property
    def total(self) -> int:
        """What the broker may hand us in all."""
        return sum(count for _, count in self._consumers)

    def reset(self) -> None:
        """A new channel: no consumers."""
        self._consumers = []

    def grow(self, waiting: int) -> tuple[str, int] | None:
        """A consumer to be added, (tag, prefetch), while so many messages wait; None for none.

        >>> prefetch = Prefetch(3)
        >>> prefetch.grow(0), prefetch.grow(0), prefetch.grow(1)
        (('vault-ml-1', 3), None, ('vault-ml-2', 3))
        """
        missing = self.base - (self.total - min(waiting, _MOST_WAITING))
        if missing <= 0:
            return None
        # A little more than is missing, in proportion, so that many waits need few consumers.
        count = missing if not self._consumers else missing + 2 + waiting // 4
        self._made += 1
        self._consumers.append((f"vault-ml-{self._made}", count))
        return self._consumers[-1]

    def shrink(self, waiting: int) -> str | None:
        """The tag of a consumer that is not needed any more, None for none."""
        if len(self._consumers) > 1:
            tag, count = self._consumers[-1]
            if self.total - count - waiting >= self.base:
                self._consumers.pop()
                return tag
        return None
