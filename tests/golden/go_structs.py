"""A decoder as strict as Go's, for the structs that Kerberos Hub's services decode a result into.

Written from the table of the public models, not from our code. `encoding/json` refuses a message
when a member has another type than its field; null leaves a field at zero; unknown members are
passed over; names match without case.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# A field's type: a name below, [type] for a slice, {name: type} for a struct, ("map", type).
Kind = Any

CLASSIFY_DETAILS: Mapping[str, Kind] = {
    "id": "string",
    "x": "float64",
    "y": "float64",
    "w": "float64",
    "h": "float64",
    "frameWidth": "float64",
    "frameHeight": "float64",
    "meanColor": "float64",
    "frame": "float64",
    "occurence": "float64",
    "distance": "float64",
    "valid": "bool",
    "classified": "string",
    "traject": [["float64"]],
    "colorStr": ["string"],
    "isStatic": "bool",
    "frames": ["int64"],
    "staticDistance": "float64",
    "trajectCentroids": [["float64"]],
}
CLASSIFY: Mapping[str, Kind] = {"properties": ["string"], "details": [CLASSIFY_DETAILS]}
# Sent by the classifiers and read by the pages, beside the struct.
CLASSIFY_DATA: Mapping[str, Kind] = {"objectCount": "int64", **CLASSIFY}

PAYLOAD: Mapping[str, Kind] = {
    "key": "string",
    "fileSize": "int64",
    "is_fragmented": "bool",
    "bytes_ranges": "string",
    "bytes_range_on_time": [{"duration": "string", "time": "string", "range": "string"}],
    "timestamp": "int64",
    "duration": "string",
    "signedUrl": "string",
    "organisationId": "string",
    "deviceId": "string",
    "deviceName": "string",
    "result": "raw",
    "metadata": ("map", "string"),
}
PIPELINE_EVENT: Mapping[str, Kind] = {
    "operation": "string",
    "provider": "string",
    "source": "string",
    "secondary_providers": ["string"],
    "request": "string",
    "events": ["string"],
    "date": "int64",
    "fileName": "string",
    "receivecount": "int64",
    "traceId": "string",
    "payload": PAYLOAD,
    "data": ("map", "raw"),
}

# A workflow run, as it goes to a worker and comes back.
WORKFLOW_RUN: Mapping[str, Kind] = {
    "operation": "string",
    "runId": "string",
    "key": "string",
    "traceId": "string",
    "workflowId": "string",
    "workflowName": "string",
    "user": ("map", "raw"),
    "device": {
        "deviceKey": "string",
        "deviceName": "string",
        "provider": "string",
        "storageSolution": "string",
        "siteIds": ["string"],
    },
    "inputs": ("map", "raw"),
    "results": ("map", "raw"),
    "payload": {"blocks": [{"type": "string", "data": "raw"}]},
}

BOX: Mapping[str, Kind] = {
    "frame": "int64",
    "timestampMs": "int64",
    "x": "float64",
    "y": "float64",
    "w": "float64",
    "h": "float64",
    "confidence": "float64",
    "label": "string",
    "classId": "int64",
    "edited": "bool",
    "smoothed": "bool",
    "meta": ("map", "raw"),
}
DETECTIONS: Mapping[str, Kind] = {
    "task": "string",
    "schemaVersion": "string",
    "source": {
        "kind": "string",
        "name": "string",
        "version": "string",
        "runId": "string",
        "inputWidth": "int64",
        "inputHeight": "int64",
        "scoreThreshold": "float64",
        "nmsIou": "float64",
        "rotationApplied": "bool",
    },
    "coordinateSpace": "string",
    "media": {
        "width": "int64",
        "height": "int64",
        "fps": "float64",
        "frameCount": "int64",
        "rotation": "int64",
    },
    "categories": [{"id": "int64", "name": "string", "alias": "string"}],
    "tracks": [
        {
            "id": "string",
            "label": "string",
            "classId": "int64",
            "confidence": "float64",
            "color": "string",
            "shape": "string",
            "deletedFrames": ["int64"],
            "meta": ("map", "raw"),
            "boxes": [BOX],
        }
    ],
}


class Refused(Exception):
    """Go's decoder would refuse the message."""


def decode(value: object, kind: Kind, place: str = "") -> None:
    """Refuse what Go's decoder would.

    Raises:
        Refused: a member has another type than its field.
    """
    if value is None or kind == "raw":
        return
    if isinstance(kind, str):
        if not _fits(value, kind):
            raise Refused(f"{place}: {value!r} is no {kind}")
    elif isinstance(kind, list):
        _require(value, list, place)
        assert isinstance(value, list)
        for index, item in enumerate(value):
            decode(item, kind[0], f"{place}[{index}]")
    else:
        _require(value, dict, place)
        assert isinstance(value, dict)
        fields = {name.casefold(): each for name, each in _fields(value, kind).items()}
        for name, item in value.items():
            if name.casefold() in fields:
                decode(item, fields[name.casefold()], f"{place}.{name}")


def _fields(value: Mapping[str, Any], kind: Kind) -> Mapping[str, Kind]:
    if isinstance(kind, tuple):
        return dict.fromkeys(value, kind[1])
    assert isinstance(kind, Mapping)
    return kind


def _require(value: object, wanted: type, place: str) -> None:
    if not isinstance(value, wanted):
        raise Refused(f"{place}: {value!r} is no {wanted.__name__}")


def _fits(value: object, kind: str) -> bool:
    if kind == "string":
        return isinstance(value, str)
    if kind == "bool":
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if kind == "int64":
        # 3.0 in the text is no integer to Go.
        return isinstance(value, int) and -(2**63) <= value < 2**63
    return isinstance(value, int | float) and math.isfinite(value)
