"""JSON Schemas of what comes in and what goes out, generated from the code that reads and writes.

The result room itself stays free of pydantic; it only lends its dataclasses.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from vault_ml.event import event_schema
from vault_ml.result import OPERATION, Data, Run, RunDocument, RunRemains

__all__ = ["event_schema", "result_schema"]


def result_schema() -> dict[str, Any]:
    """JSON Schema of a result message in the `vault` profile, with or without extras."""
    event = event_schema()
    references, definitions = TypeAdapter.json_schemas(
        [
            (kind, "serialization", TypeAdapter(kind))
            for kind in (Data, Run, RunDocument, RunRemains)
        ]
    )
    schemas = definitions["$defs"]
    # pydantic finds the texts under inherited fields only in the class that declares them.
    schemas["RunDocument"]["properties"] |= schemas.pop("Run")["properties"]
    schemas["Data"]["properties"]["run"] = {
        "anyOf": [references[kind, "serialization"] for kind in (RunDocument, RunRemains)],
        "description": "How the recording was looked at. Absent with RESULT_EXTRAS=false.",
    }
    return {
        "$schema": event["$schema"],
        "$defs": event["$defs"] | schemas,
        "title": "Result",
        "description": "The event as it came, without credentials, with `data` and `operation`. "
        "Further members of the event, and of its `data`, are passed on.",
        "type": "object",
        "properties": event["properties"]
        | {
            "data": references[Data, "serialization"],
            "operation": {"const": OPERATION, "description": "Which service this result is of."},
        },
        "required": [*event["required"], "data", "operation"],
    }
