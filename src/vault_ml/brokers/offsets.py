"""Which messages of one Kafka partition are finished, and how far that lets us commit.

Kafka keeps one number per partition and group: the next offset to deliver. Recordings finish out
of order, so the number may only pass what is finished without a hole: the *finished prefix*.
Everything behind the first hole is delivered again after a crash.
"""

from __future__ import annotations

from collections import deque


class FinishedPrefix:
    """The messages of one partition since it was assigned to us.

    Offsets are received in rising order, with gaps where a topic is compacted or transactional;
    they finish in any order. Not thread-safe.

    >>> prefix = FinishedPrefix()
    >>> for offset in (4, 5, 9):
    ...     prefix.receive(offset)
    >>> prefix.finish(5)
    >>> prefix.position
    4
    >>> prefix.finish(4)
    >>> prefix.position, prefix.window
    (6, 1)
    """

    def __init__(self) -> None:
        """Begin with nothing received."""
        self._open: deque[int] = deque()  # received and not in the prefix, rising
        self._finished: set[int] = set()  # the finished ones of these
        self._last_received: int | None = None
        self._position: int | None = None

    @property
    def position(self) -> int | None:
        """The offset that may be committed: everything received below it is finished.

        It is the last finished offset of the prefix + 1, or, while nothing is finished, the first
        offset received (committing that moves nothing). None while nothing was received.
        """
        return self._position

    @property
    def window(self) -> int:
        """How many received messages a commit does not pass yet, finished or not."""
        return len(self._open)

    @property
    def unfinished(self) -> int:
        """How many received messages are not finished."""
        return len(self._open) - len(self._finished)

    def receive(self, offset: int) -> None:
        """Note that `offset` was handed to us.

        Raises:
            ValueError: it is not above every earlier one.
        """
        if offset < 0 or (self._last_received is not None and offset <= self._last_received):
            raise ValueError(f"offset {offset} came after offset {self._last_received}")
        self._last_received = offset
        self._open.append(offset)
        if self._position is None:
            self._position = offset

    def finish(self, offset: int) -> None:
        """Note that the work of `offset` is done.

        Raises:
            ValueError: it was not received, or is finished already.
        """
        if not self.is_unfinished(offset):
            raise ValueError(f"offset {offset} is not in our hands")
        self._finished.add(offset)
        while self._open and self._open[0] in self._finished:
            last = self._open.popleft()
            self._finished.remove(last)
            self._position = last + 1

    def is_unfinished(self, offset: int) -> bool:
        """True when `offset` was received and is not finished."""
        # A window is some hundreds long at most, and the one asked for is mostly near its front.
        return offset in self._open and offset not in self._finished
