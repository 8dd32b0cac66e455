"""`Log`: the part of a structured logger that the rooms use.

A structlog logger fits, and so does a list of lines in a test.
"""

from __future__ import annotations

from typing import Any, Protocol


class Log(Protocol):
    """Says what happened: `log.info("recording_fetched", key=..., bytes=...)`."""

    def info(self, event: str, **fields: Any) -> Any:
        """Say something."""
        ...

    def warning(self, event: str, **fields: Any) -> Any:
        """Say something that may need a person."""
        ...

    def error(self, event: str, **fields: Any) -> Any:
        """Say something that needs a person."""
        ...
