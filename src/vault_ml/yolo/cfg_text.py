"""Darknet's `.cfg` as text: sections in square brackets, `key = value` lines, comments.

Source: darknet `src/parser.c` read_cfg, `src/option_list.c`. Like darknet, all white space is
dropped and the first of two equal keys counts; unlike darknet, a number that is not one is an
error instead of zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from vault_ml.errors import ModelError

_T = TypeVar("_T", int, float)


@dataclass(frozen=True, slots=True)
class _Option:
    line: int
    value: str


class Section:
    """One `[section]` and its options. Every reader names file, line and section when it fails."""

    def __init__(self, file_name: str, name: str, line: int) -> None:
        """An empty section whose header is at `line`, 1-based."""
        self.file_name = file_name
        self.name = name
        self.line = line
        self._options: dict[str, _Option] = {}

    def add(self, key: str, value: str, line: int) -> None:
        """Keep an option; the first of two equal keys counts."""
        self._options.setdefault(key, _Option(line, value))

    def fault(self, problem: str, key: str | None = None) -> ModelError:
        """A `ModelError` that points at `key`'s line where there is one, else at the header."""
        line = self._options[key].line if key in self._options else self.line
        return ModelError(f"{self.file_name}, line {line}, [{self.name}]: {problem}")

    def text(self, key: str, default: str) -> str:
        """The option as it stands, without white space."""
        return self._options[key].value if key in self._options else default

    def integer(self, key: str, default: int, *, at_least: int | None = None) -> int:
        """The option as a whole number; the default is not checked."""
        if key not in self._options:
            return default
        value = self._convert(key, self._options[key].value, int, "a whole number")
        if at_least is not None and value < at_least:
            raise self.fault(f"{key}={value} must be at least {at_least}", key)
        return value

    def number(self, key: str, default: float) -> float:
        """The option as a finite number."""
        if key not in self._options:
            return default
        return self._convert(key, self._options[key].value, float, "a number")

    def integers(self, key: str) -> tuple[int, ...]:
        """The option as whole numbers between commas; empty where it is absent."""
        return tuple(self._convert(key, word, int, "a whole number") for word in self._words(key))

    def numbers(self, key: str) -> tuple[float, ...]:
        """The option as finite numbers between commas; empty where it is absent."""
        return tuple(self._convert(key, word, float, "a number") for word in self._words(key))

    def refuse(self, off: Mapping[str, float]) -> None:
        """Raise where one of these keys has another value than the one that switches it off."""
        for key, value in off.items():
            if self.number(key, value) != value:
                raise self.fault(f"{key}={self.text(key, '')} is not supported", key)

    def _words(self, key: str) -> list[str]:
        # A comma at the end is common in the wild; darknet reads past it.
        return [word for word in self.text(key, "").split(",") if word]

    def _convert(self, key: str, word: str, kind: Callable[[str], _T], noun: str) -> _T:
        try:
            value = kind(word)
        except ValueError as error:
            raise self.fault(f"{key}: {word!r} is not {noun}", key) from error
        if not math.isfinite(value):
            raise self.fault(f"{key}: {word!r} is not {noun}", key)
        return value


def read_sections(text: str, name: str) -> list[Section]:
    """Split a `.cfg` into its sections.

    Args:
        text: the file's text.
        name: the file's name, for messages.

    Returns:
        The sections in file order.

    Raises:
        ModelError: a line is neither a section, an option nor a comment; names the line.
    """
    sections: list[Section] = []
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        # Darknet strips every blank, then reads numbers up to the first odd character: a comment
        # behind a value is harmless there, and here.
        line = "".join(raw.split("#", 1)[0].split(";", 1)[0].split())
        if not line:
            continue
        if line.startswith("["):
            if not line.endswith("]"):
                raise ModelError(f"{name}, line {number}: the section {line!r} is not closed by ]")
            sections.append(Section(name, line[1:-1], number))
            continue
        key, equals, value = line.partition("=")
        if not equals or not sections:
            raise ModelError(
                f"{name}, line {number}: expected [section] or key=value, got {line[:40]!r}; "
                "is this a darknet .cfg?"
            )
        sections[-1].add(key, value, number)
    return sections
