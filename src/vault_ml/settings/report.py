"""`Settings` -> the rows of `vault-ml config`, and the table of the README."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from vault_ml.settings.fields import DEFAULT_TEXT, NOT_YET, Settings, names, variable
from vault_ml.settings.loading import given
from vault_ml.telemetry.redaction import MASK, is_secret_name
from vault_ml.tracking.distance import Distance


@dataclass(frozen=True, slots=True)
class Row:
    """One setting in force.

    Attributes:
        name: the variable.
        value: what is used, as text; secrets masked, '' when there is none.
        source: `default` or `environment`.
        alias: the variable it was read from, where that is not `name`.
    """

    name: str
    value: str
    source: str
    alias: str | None


def describe(settings: Settings, environ: Mapping[str, str]) -> list[Row]:
    """Every setting as it is in force.

    Args:
        settings: what `load(environ)` returned.
        environ: the environment it was read from.
    """
    found = given(environ)
    rows = []
    for field in Settings.model_fields:
        value = found.get(field)
        rows.append(
            Row(
                name=variable(field),
                value=_shown(field, settings),
                source="environment" if value else "default",
                alias=value.variable if value and value.variable != variable(field) else None,
            )
        )
    return rows


def markdown_table() -> str:
    """The table of variables for the README: name, default, explanation. Ends with a newline."""
    lines = ["| Name | Default | Explanation |", "| --- | --- | --- |"]
    lines += [
        f"| `{variable(field)}` | {_default_cell(field)} | {_explanation(field)} |"
        for field in Settings.model_fields
    ]
    return "\n".join(lines) + "\n"


def _shown(field: str, settings: Settings) -> str:
    value = getattr(settings, field)
    if field == "queue_dead_letter":
        return settings.dead_letter_queue
    if field == "worker_concurrency" and value is None:
        return "auto"
    in_force = {
        "number_of_predictions": "most_frames",
        "frame_sampling": "sampling",
        "precision": "number_format",
        "input_shape": "shape",
        "classification_fps": "frames_per_s",
        "result_profile": "profile",
    }
    if field in in_force:
        value = getattr(settings, in_force[field])
    if field == "hub_labels" and value is None:
        return DEFAULT_TEXT[field]
    if field == "message_vault_origins":
        return str(settings.origins)
    return _text(value)


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case SecretStr():
            return MASK
        case frozenset():
            return ",".join(str(each) for each in sorted(value))
        case Distance():
            return f"{value.value:g}{'%' if value.is_percent else ''}"
        case dict():
            return ",".join(
                f"{name}={MASK if is_secret_name(name) else text}" for name, text in value.items()
            )
        case _:
            return str(value)


def _default_cell(field: str) -> str:
    info = Settings.model_fields[field]
    if field in DEFAULT_TEXT:
        return f"`{DEFAULT_TEXT[field]}`"
    if info.is_required():
        return "required"
    default = info.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, Path):
        raise TypeError(f"{field}: a path is different on every machine; give it a DEFAULT_TEXT")
    text = _text(default)
    return f"`{text}`" if text else ""


def _explanation(field: str) -> str:
    text = Settings.model_fields[field].description or ""
    later = [value for value in NOT_YET.get(field, {}) if value.lower() not in text.lower()]
    if later:
        text += f" Not in this version yet: {', '.join(f'`{value}`' for value in later)}."
    aliases = names(field)[1:]
    if aliases:
        text += f" Also read from {', '.join(f'`{alias}`' for alias in aliases)}."
    return text.replace("|", "\\|")
