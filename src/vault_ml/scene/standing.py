"""`Standing`: an object that stood somewhere when we last looked; its text for a store. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

# Parts of the picture are kept to a hundredth of a percent, colours to a hundredth.
_PLACE_DIGITS, _COLOUR_DIGITS = 4, 2


@dataclass(frozen=True, slots=True)
class Standing:
    """An object that stood still, or came to a stand, at a camera.

    Attributes:
        label: its class.
        xyxy: its box, as parts of the picture's width and height.
        colours: what it looks like (`tracking.appearance`), sparse: place -> value.
        first_at: start of the recording it was first seen in, unix seconds.
        first_key: that recording. There the object is new, also when the event comes again.
        last_key: the last recording that counted.
        recordings: in how many it was seen.
        missed: recordings in a row in which it was not.
    """

    label: str
    xyxy: tuple[float, float, float, float]
    colours: dict[int, float]
    first_at: int
    first_key: str
    last_key: str
    recordings: int = 1
    missed: int = 0


def dump(objects: list[Standing]) -> str:
    """Objects -> text."""
    return json.dumps([_short(each) for each in objects], separators=(",", ":"))


def load(text: str | None) -> list[Standing]:
    """Text of `dump` -> objects; none for a text that nobody of us wrote.

    What is lost then is that objects are reported once more.
    """
    try:
        return [_standing(each) for each in json.loads(text or "[]")]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


def _short(standing: Standing) -> dict[str, Any]:
    document = asdict(standing)
    document["xyxy"] = [round(side, _PLACE_DIGITS) for side in standing.xyxy]
    document["colours"] = {
        str(place): round(value, _COLOUR_DIGITS) for place, value in standing.colours.items()
    }
    return document


def _standing(document: dict[str, Any]) -> Standing:
    x1, y1, x2, y2 = (float(side) for side in document["xyxy"])
    return Standing(
        label=str(document["label"]),
        xyxy=(x1, y1, x2, y2),
        colours={int(place): float(value) for place, value in document["colours"].items()},
        first_at=int(document["first_at"]),
        first_key=str(document["first_key"]),
        last_key=str(document["last_key"]),
        recordings=int(document["recordings"]),
        missed=int(document["missed"]),
    )
