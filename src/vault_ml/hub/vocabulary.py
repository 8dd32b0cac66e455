"""Hub's words for what networks see."""

from __future__ import annotations

from collections.abc import Mapping

# Hub's alerts and its page compare these words letter by letter.
HUB_WORDS: Mapping[str, str] = {
    "person": "pedestrian",
    "truck": "lorry",
    "van": "car",
    "bicycle": "cyclist",
    "motorbike": "motorcycle",
    "bird": "animal",
    "cat": "animal",
    "dog": "animal",
}
