"""One name for one way of looking at one recording.

A redelivered event gets the same id, so a consumer that keeps results by it sees each recording
once, on every broker (design: effectively once).
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass

from vault_ml.json_text import fields_of

# Chosen once, at random. Another one would give every recording a new id.
NAMESPACE = uuid.UUID("c478b1a4-a423-4152-ae2b-6efc8277d182")
# Counted up when the code comes to other detections or another count from the same input.
RULES = 1


@dataclass(frozen=True, slots=True)
class WayOfLooking:
    """Everything besides the recording that the content of a result depends on.

    The device is not among it: a worker with a GPU and one without give the same id, and
    detections that agree within the tolerance the documentation states.

    Attributes:
        model_sha256: digest of what determines the model's output.
        runtime: library and version that runs the network, or `auto` for whichever of those that
            agree within rounding is fastest on a machine (docs/adr/0014-runtimes.md).
        precision: number format of the network.
        input_shape: `square` or `rect`.
        number_of_predictions: frames asked for.
        frame_sampling: how frames are chosen.
        confidence_threshold: objects below are not reported.
        nms_threshold: overlap above which two boxes of a class are one.
        object_threshold: FORWARDING_OBJECT_THRESHOLD.
        allowed_labels: objects of interest, sorted; None is all.
        profile: shape of the result message.
        extras: whether `data.run` is in the message.
        more: what later versions added to the above, by name. It is not there where it is not used,
            so that a recording that is looked at as before keeps its id.
    """

    model_sha256: str
    runtime: str
    precision: str
    input_shape: str
    number_of_predictions: int
    frame_sampling: str
    confidence_threshold: float
    nms_threshold: float
    object_threshold: int
    allowed_labels: tuple[str, ...] | None
    profile: str
    extras: bool
    more: tuple[tuple[str, str], ...] = ()


def run_id(key: str, source: str, way: WayOfLooking) -> str:
    """The id, a UUID of version 5 (RFC 9562) as lower-case text.

    Args:
        key: the recording's key.
        source: its storage provider.
        way: how it is looked at.
    """
    fields = fields_of(way)
    fields |= dict(fields.pop("more"))
    name = {"key": key, "source": source, "rules": RULES} | fields
    # ASCII, sorted and without blanks: the same bytes on every machine.
    return str(uuid.uuid5(NAMESPACE, json.dumps(name, sort_keys=True, separators=(",", ":"))))
