"""What a runtime compiled for each size of input; the sizes that were used last are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

_MOST_SIZES = 4
"""Each size has its own memory: weights in the processor's layout, intermediate results."""

_Compiled = TypeVar("_Compiled")


class CompiledSizes(Generic[_Compiled]):
    """At most `_MOST_SIZES` compiled models by size (w, h), pixels. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_size: OrderedDict[tuple[int, int], _Compiled] = OrderedDict()

    def get(self, wh: tuple[int, int], compile_it: Callable[[], _Compiled]) -> _Compiled:
        """The model for a size: compiled when first met, then kept.

        Room is made before `compile_it` is called, so that no more are held meanwhile; a thread
        that wants the same size waits for it. Whatever it raises is raised, and nothing is kept.
        """
        with self._lock:
            if wh not in self._by_size:
                if len(self._by_size) >= _MOST_SIZES:
                    self._by_size.popitem(last=False)
                self._by_size[wh] = compile_it()
            self._by_size.move_to_end(wh)
            return self._by_size[wh]

    def clear(self) -> None:
        """Let go of all of them, after a compilation that is under way."""
        with self._lock:
            self._by_size.clear()
