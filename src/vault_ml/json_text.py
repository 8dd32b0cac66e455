"""JSON objects edited as text, so that what is not edited survives to the last character.

Reading and dumping a document changes it: `1.10` becomes `1.1`, a 20-digit number loses digits
elsewhere, escapes are rewritten, of two equal names one is dropped. An event must reach the next
service as Kerberos Vault wrote it, therefore its members are cut out and put together as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

_BLANK = re.compile(r"[ \t\n\r]*")
# Strings are skipped whole (possessive: linear in time, also for a string that never ends).
_NESTING = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{\]}]', re.DOTALL)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _whole_number(literal: str) -> int | float:
    # Python refuses to convert thousands of digits; no such number means anything to us.
    return int(literal) if len(literal) <= _MAX_DIGITS else float(literal)


_MAX_DIGITS = 40
_decoder = json.JSONDecoder(parse_int=_whole_number, parse_constant=_no_constant)


@dataclass(frozen=True, slots=True)
class Member:
    """One name and value of an object.

    Attributes:
        name: the name, escapes resolved.
        name_text: the name as written, quotes included.
        value_text: the value as written, without blanks around it.
    """

    name: str
    name_text: str
    value_text: str


def decode(text: str) -> object:
    """Text -> dicts, lists, texts, numbers.

    Raises:
        ValueError: not JSON as RFC 8259 defines it; NaN and Infinity are not.
    """
    value, end = _decoder.raw_decode(text, _after_blanks(text, 0))
    if _after_blanks(text, end) != len(text):
        raise ValueError("something follows the value")
    return value


def depth(text: str) -> int:
    """How deep objects and lists nest; exact for valid JSON, linear in time for any text.

    >>> depth('{"a": [1, "[["]}')
    2
    """
    now = deepest = 0
    for match in _NESTING.finditer(text):
        first = match.group()[0]
        if first in "[{":
            now += 1
            deepest = max(deepest, now)
        elif first != '"':
            now -= 1
    return deepest


def members(text: str) -> list[Member]:
    """Cut an object into its members, in order; equal names are all there.

    Args:
        text: one JSON object that `decode` accepts.
    """
    found: list[Member] = []
    at = _after_blanks(text, _after_blanks(text, 0) + 1)  # behind the brace
    while text[at] != "}":
        name, name_end = _decoder.raw_decode(text, at)
        start = _after_blanks(text, _after_blanks(text, name_end) + 1)  # behind the colon
        _, end = _decoder.raw_decode(text, start)
        found.append(Member(str(name), text[at:name_end], text[start:end]))
        at = _after_blanks(text, end)
        if text[at] == ",":
            at = _after_blanks(text, at + 1)
    return found


def join(parts: Iterable[Member]) -> str:
    """Members -> the text of an object."""
    return "{" + ", ".join(f"{part.name_text}: {part.value_text}" for part in parts) + "}"


def member(name: str, value: object) -> Member:
    """A member of our own; a dataclass in `value` becomes an object with its fields.

    Raises:
        ValueError: `value` holds NaN or an infinity.
    """
    return Member(name, json.dumps(name), _encoder.encode(value))


def fields_of(instance: Any) -> dict[str, Any]:
    """The fields of a dataclass by name; unlike `dataclasses.asdict` it copies nothing in them."""
    return {each.name: getattr(instance, each.name) for each in fields(instance)}


def _of_ours(value: object) -> dict[str, Any]:
    if is_dataclass(value):
        return fields_of(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_of_ours)


def without(text: str, paths: Collection[tuple[str, ...]]) -> str:
    """An object's text without the members at `paths`; untouched where none of them is there.

    Names are compared without case, as Go's decoder does: a secret under another spelling would
    still be read as one.

    >>> without('{"a": {"b": 1.10, "C": 2}, "c": 3}', [("a", "c")])
    '{"a": {"b": 1.10}, "c": 3}'
    """
    kept: list[Member] = []
    is_changed = False
    for part in members(text):
        below = [path[1:] for path in paths if path[0].casefold() == part.name.casefold()]
        if () in below:
            is_changed = True
            continue
        value = part.value_text
        if below and value.startswith("{"):
            value = without(value, below)
            is_changed |= value != part.value_text
        kept.append(Member(part.name, part.name_text, value))
    return join(kept) if is_changed else text


def _after_blanks(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at
