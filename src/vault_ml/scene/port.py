"""The port to a store of what stands at each camera."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class SceneStore(Protocol):
    """A text per camera; bounded in age and number. Any thread, any number of workers."""

    def change(self, camera: str, change: Callable[[str | None], str]) -> None:
        """Replace what is remembered of a camera by what `change` makes of it, in one step.

        Of two workers that change a camera at the same time, one sees what the other made. So that
        nobody waits, `change` may be called more than once; what its last call said is kept.

        Raises:
            SceneUnavailable: the store is away, full or damaged.
        """
        ...

    def ping(self) -> None:
        """Return when the store answers.

        Raises:
            SceneUnavailable: it does not.
            ConfigError: it answers that we may not, or is none.
        """
        ...

    def close(self) -> None:
        """Leave. Idempotent."""
        ...
