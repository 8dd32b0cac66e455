"""JSON Schemas of what comes in and what goes out, generated from the code that reads and writes.

The result room itself stays free of pydantic; it only lends its dataclasses.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from vault_ml.event import event_schema
from vault_ml.hub.classify import OPERATION as HUB_OPERATION
from vault_ml.hub.classify import Classify
from vault_ml.result import OPERATION, Data, Run, RunDocument, RunRemains

__all__ = ["event_schema", "hub_result_schema", "result_schema"]


def result_schema() -> dict[str, Any]:
    """JSON Schema of a result message in the `vault` profile, with or without extras."""
    return _schema(Data, OPERATION, "Result")


def hub_result_schema() -> dict[str, Any]:
    """JSON Schema of a result message in the `hub` profile, with or without extras."""
    return _schema(Classify, HUB_OPERATION, "Result for Kerberos Hub")


def _schema(data: type, operation: str, title: str) -> dict[str, Any]:
    event = event_schema()
    references, definitions = TypeAdapter.json_schemas(
        [
            (kind, "serialization", TypeAdapter(kind))
            for kind in (data, Run, RunDocument, RunRemains)
        ]
    )
    schemas = definitions["$defs"]
    # pydantic finds the texts under inherited fields only in the class that declares them.
    schemas["RunDocument"]["properties"] |= schemas.pop("Run")["properties"]
    schemas[data.__name__]["properties"]["run"] = {
        "anyOf": [references[kind, "serialization"] for kind in (RunDocument, RunRemains)],
        "description": "How the recording was looked at. Absent with RESULT_EXTRAS=false.",
    }
    return {
        "$schema": event["$schema"],
        "$defs": event["$defs"] | schemas,
        "title": title,
        "description": "The event as it came, without credentials, with `data` and `operation`. "
        "Further members of the event, and of its `data`, are passed on.",
        "type": "object",
        "properties": event["properties"]
        | {
            "data": references[data, "serialization"],
            "operation": {"const": operation, "description": "Which service this result is of."},
        },
        "required": [*event["required"], "data", "operation"],
    }
