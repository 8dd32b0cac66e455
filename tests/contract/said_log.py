"""A logger for tests that remembers."""

from __future__ import annotations


class SaidLog:
    """A logger that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.said.append((event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.said.append((event, fields))

    def error(self, event: str, **fields: object) -> None:
        self.said.append((event, fields))

    def events(self, *names: str) -> list[dict[str, object]]:
        return [fields for event, fields in self.said if event in names]
