"""`RecordingEvent`: Kerberos Vault's message that a recording was stored.

Two fields are needed, all others are hints that may be absent, or texts where numbers are
expected. Nothing is lost: the event keeps its text, and results are written from that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StrictStr,
    ValidationError,
    WithJsonSchema,
)

from vault_ml import json_text
from vault_ml.errors import MalformedEvent
from vault_ml.file_name import RecordingName, parse_file_name

# Brokers pass messages of about 1 MB; four times that is no event of Kerberos Vault.
MAX_EVENT_BYTES = 4 * 1024 * 1024
# An event nests five deep. The limit keeps every later recursion over it shallow.
MAX_DEPTH = 64
# Storage keys end at 1024 bytes (S3); header lines at about 8 KiB.
_MAX_NAME_CHARACTERS = 4096
# Control characters would end the header line that carries the name; a lone surrogate cannot be
# written as UTF-8.
_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_WHOLE = re.compile(r"[+-]?\d{1,40}", re.ASCII)

# Where credentials travel inside events, and links that are as good as credentials.
CREDENTIAL_PATHS: tuple[tuple[str, ...], ...] = (
    ("data", "storage_uri"),
    ("data", "storage_access_key"),
    ("data", "storage_secret"),
    ("data", "storage_secret_key"),
    ("monitorStage", "user", "storage"),
    ("payload", "signedUrl"),
    ("signedUrl",),
    ("storage",),  # a workflow run's
    ("user", "storage"),
)


@dataclass(frozen=True, slots=True)
class Storage:
    """A Vault and an account there, named by an event. Never shows itself.

    Attributes:
        uri: the Vault's address. Anybody may have written it.
        access_key: of the account.
        secret_key: of the account.
        provider: the storage provider there, where it is not the event's `source`.
    """

    uri: str = field(repr=False)
    access_key: SecretStr = field(repr=False)
    secret_key: SecretStr = field(repr=False)
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class RecordingEvent:
    """A message that says a recording was stored.

    Attributes:
        key: name of the recording in its storage provider. Data from the wire: never a local path.
        source: the storage provider, what the Vault's `Provider` header wants.
        text: the event as it came, JSON text.
        document: the same, decoded. Numbers may have lost digits; `text` has them.
        file_name: what the agent wrote into the name, if it did.
        camera: the camera's name; None when neither metadata nor name tells it.
        provider: the storage solution, such as `kstorage`.
        secondary_providers: further places of the recording.
        date: unix seconds at which the event was made.
        timestamp: unix seconds at which the recording begins.
        file_size: bytes, as the event claims. May be wrong: 1 for events sent again by hand.
        duration_ms: milliseconds, as the event claims.
        fps: frames per second, as the event claims.
        signed_url: where the recording can be fetched without credentials, for a while.
        trace_id: OpenTelemetry's id of the upload.
        storage: the Vault that holds the recording, where the event brings its address and keys
            (the Kerberos Hub pipeline).
        motion_region: where the agent saw motion, as it wrote it; None where no motion began the
            recording.
        is_workflow_run: it is Kerberos Hub's message to a workflow's worker, which wants its own
            kind of answer.
    """

    key: str
    source: str
    text: str = field(repr=False)
    document: Mapping[str, Any] = field(repr=False)
    file_name: RecordingName | None = field(default=None, repr=False)
    camera: str | None = None
    provider: str | None = None
    secondary_providers: tuple[str, ...] = ()
    date: int | None = None
    timestamp: int | None = None
    file_size: int | None = None
    duration_ms: int | None = None
    fps: float | None = None
    signed_url: str | None = field(default=None, repr=False)
    trace_id: str | None = None
    storage: Storage | None = field(default=None, repr=False)
    motion_region: str | None = None
    is_workflow_run: bool = False

    def without_credentials(self) -> str:
        """The event's text without credentials and signed links, otherwise as it came."""
        return json_text.without(self.text, CREDENTIAL_PATHS)


def parse(body: bytes) -> RecordingEvent:
    """Read an event.

    Raises:
        MalformedEvent: no JSON object, or `payload.key` or `source` is missing or no text; the
            sentence says which. It never repeats the event, which may hold credentials.
    """
    text = _text(body)
    if json_text.depth(text) > MAX_DEPTH:
        raise MalformedEvent(f"the event nests deeper than {MAX_DEPTH} levels")
    try:
        document = json_text.decode(text)
    except ValueError:
        raise MalformedEvent("the event is not valid JSON") from None
    if not isinstance(document, dict):
        raise MalformedEvent("the event is not a JSON object")
    is_run = "runId" in document and "payload" not in document
    try:
        if is_run:
            run = WorkflowRun.model_validate(document)
            wire = EventMessage.model_validate(run.as_event(document))
        else:
            wire = EventMessage.model_validate(document)
    except ValidationError as invalid:
        raise MalformedEvent(_what_is_missing(invalid)) from None
    return _event(wire, text, document, is_workflow_run=is_run)


def _text(body: bytes) -> str:
    if not body.strip():
        raise MalformedEvent("the event is empty")
    if len(body) > MAX_EVENT_BYTES:
        raise MalformedEvent(f"the event is larger than {MAX_EVENT_BYTES} bytes")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise MalformedEvent("the event is not UTF-8 text") from None


def _event(
    wire: EventMessage, text: str, document: dict[str, Any], *, is_workflow_run: bool
) -> RecordingEvent:
    payload, metadata = wire.payload, wire.payload.metadata
    name = parse_file_name(payload.key)
    camera = metadata.instance_name or payload.device_name or (name.device if name else None)
    timestamp = payload.timestamp
    if timestamp is None:
        timestamp = metadata.timestamp
    if timestamp is None and name is not None:
        timestamp = name.timestamp
    return RecordingEvent(
        key=payload.key,
        source=wire.source,
        text=text,
        document=document,
        file_name=name,
        camera=camera or None,
        provider=wire.provider,
        secondary_providers=wire.secondary_providers,
        date=wire.date,
        timestamp=timestamp,
        file_size=payload.file_size,
        duration_ms=metadata.duration_ms if metadata.duration_ms is not None else payload.duration,
        fps=metadata.fps,
        signed_url=payload.signed_url,
        trace_id=wire.trace_id,
        storage=_storage(wire),
        motion_region=_motion_region(metadata.region, name),
        is_workflow_run=is_workflow_run,
    )


def _motion_region(told: str | None, name: RecordingName | None) -> str | None:
    """Where the agent saw motion; None for a continuous recording, which no motion began."""
    if name is not None and name.changes < 0:
        return None
    return told or (name.region if name is not None else None)


def _storage(wire: EventMessage) -> Storage | None:
    """The first complete set of address and keys; a set that lacks one is none.

    Never a part of one set with a part of another, or of ours: that is how a forged event would
    have our keys sent to an address of its own.
    """
    data, run, user = wire.data, wire.storage, wire.monitor_stage.user.storage
    sets = (
        (data.uri, data.access_key, data.secret or data.secret_key, None),
        (run.override_uri, run.override_access_key, run.override_secret, run.override_provider),
        (run.uri, run.access_key, run.secret, None),
        (user.uri, user.access_key, user.secret_key, None),
    )
    for uri, access_key, secret_key, provider in sets:
        if uri and access_key and secret_key:
            return Storage(uri, SecretStr(access_key), SecretStr(secret_key), provider or None)
    return None


def _what_is_missing(invalid: ValidationError) -> str:
    """One sentence from pydantic's first finding; of the values, nothing."""
    error = invalid.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"the event has no {place}"
    if error["type"] == "string_type":
        return f"the event's {place} is not a text"
    if error["type"] == "string_too_short":
        return f"the event's {place} is empty"
    if error["type"] == "model_type":
        return f"the event's {place} is not an object"
    return f"the event's {place} cannot be the name of a recording or a storage provider"


# --- the wire, as far as we read it --------------------------------------------------------------


def _fit(value: object) -> object:
    if isinstance(value, str) and (len(value) > _MAX_NAME_CHARACTERS or _UNFIT.search(value)):
        raise ValueError("unfit")
    return value


def _text_or_none(value: object) -> str | None:
    """Texts; numbers as texts; nothing else, because a hint must not condemn an event."""
    if isinstance(value, str):
        return None if _UNFIT.search(value) else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return None


def _number_or_none(value: object) -> float | None:
    """Numbers, and texts that are numbers; nothing else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _whole_or_none(value: object) -> int | None:
    # Not by way of float where it can be helped: it would round above 2 ** 53.
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    number = _number_or_none(value)
    return None if number is None else int(number)


def _fps_or_none(value: object) -> float | None:
    number = _number_or_none(value)
    return number if number is not None and number > 0 else None


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(item for item in value if isinstance(item, str))


def _object_or_empty(value: object) -> object:
    return value if isinstance(value, dict) else {}


_Name = Annotated[StrictStr, BeforeValidator(_fit)]
_Key = Annotated[StrictStr, Field(min_length=1), BeforeValidator(_fit)]
_Text = Annotated[
    str | None,
    BeforeValidator(_text_or_none),
    WithJsonSchema({"type": ["string", "number", "null"]}),
]
_NUMBER = {"type": ["number", "string", "null"]}
_Whole = Annotated[int | None, BeforeValidator(_whole_or_none), WithJsonSchema(_NUMBER)]
_Fps = Annotated[float | None, BeforeValidator(_fps_or_none), WithJsonSchema(_NUMBER)]
_Texts = Annotated[
    tuple[str, ...],
    BeforeValidator(_texts),
    WithJsonSchema({"type": ["array", "null"], "items": {"type": "string"}}),
]


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Metadata(_Wire):
    """What the agent says about the recording; all texts, also the numbers."""

    instance_name: _Text = Field(None, alias="event-instancename", description="The camera.")
    timestamp: _Whole = Field(
        None, alias="event-timestamp", description="Start of the recording, unix seconds."
    )
    duration_ms: _Whole = Field(None, alias="duration", description="Length, milliseconds.")
    fps: _Fps = Field(None, description="Frames per second.")
    region: _Text = Field(
        None,
        alias="event-regioncoordinates",
        description="Where motion was seen: x1-y1-x2-y2, or x-y-width-height from newer agents.",
    )


class Payload(_Wire):
    """The recording."""

    key: _Key = Field(description="Name of the recording in its storage provider.")
    file_size: _Whole = Field(None, alias="fileSize", description="Size, bytes.")
    timestamp: _Whole = Field(None, description="Start of the recording, unix seconds.")
    duration: _Whole = Field(None, description="Length, milliseconds.")
    device_name: _Text = Field(None, alias="deviceName", description="The camera.")
    signed_url: _Text = Field(
        None, alias="signedUrl", description="Where the recording can be fetched for a while."
    )
    metadata: Annotated[Metadata, BeforeValidator(_object_or_empty)] = Field(
        default_factory=lambda: Metadata.model_validate({}), description="The agent's own words."
    )


class HubData(_Wire):
    """Address and keys that Kerberos Hub sends along."""

    uri: _Text = Field(None, alias="storage_uri", description="The Vault's address.")
    access_key: _Text = Field(None, alias="storage_access_key", description="Access key there.")
    secret: _Text = Field(None, alias="storage_secret", description="Secret key there.")
    secret_key: _Text = Field(
        None, alias="storage_secret_key", description="Another name of storage_secret."
    )


class RunStorage(_Wire):
    """Address and keys of a workflow run; the override counts where it is complete."""

    uri: _Text = Field(None, description="The Vault's address.")
    access_key: _Text = Field(None, alias="accessKey", description="Access key there.")
    secret: _Text = Field(None, description="Secret key there.")
    override_uri: _Text = Field(None, alias="vaultOverrideUri", description="Instead of uri.")
    override_access_key: _Text = Field(
        None, alias="vaultOverrideAccessKey", description="Instead of accessKey."
    )
    override_secret: _Text = Field(
        None, alias="vaultOverrideSecret", description="Instead of secret."
    )
    override_provider: _Text = Field(
        None, alias="vaultOverrideProvider", description="Instead of the event's source."
    )


class UserStorage(_Wire):
    """Address and keys of the user whose recording it is."""

    uri: _Text = Field(None, description="The Vault's address.")
    access_key: _Text = Field(None, description="Access key there.")
    secret_key: _Text = Field(None, description="Secret key there.")


class User(_Wire):
    """The user whose recording it is."""

    storage: Annotated[UserStorage, BeforeValidator(_object_or_empty)] = Field(
        default_factory=lambda: UserStorage.model_validate({}), description="Where it is."
    )


class MonitorStage(_Wire):
    """What an earlier stage of Kerberos Hub added."""

    user: Annotated[User, BeforeValidator(_object_or_empty)] = Field(
        default_factory=lambda: User.model_validate({}), description="Whose recording it is."
    )


class EventMessage(_Wire):
    """The message that Kerberos Vault sends when a recording was stored.

    Only what this service reads is listed. Everything else is passed on as it came.
    """

    source: _Name = Field(description="The storage provider that holds the recording.")
    payload: Payload = Field(description="The recording.")
    provider: _Text = Field(None, description="The storage solution, such as kstorage.")
    secondary_providers: _Texts = Field((), description="Further places of the recording.")
    date: _Whole = Field(None, description="When the event was made, unix seconds.")
    trace_id: _Text = Field(None, alias="traceId", description="OpenTelemetry's trace id.")
    data: Annotated[HubData, BeforeValidator(_object_or_empty)] = Field(
        default_factory=lambda: HubData.model_validate({}),
        description="Of the Hub pipeline: the Vault that holds the recording.",
    )
    storage: Annotated[RunStorage, BeforeValidator(_object_or_empty)] = Field(
        default_factory=lambda: RunStorage.model_validate({}),
        description="Of a workflow run: the Vault that holds the recording.",
    )
    monitor_stage: Annotated[MonitorStage, BeforeValidator(_object_or_empty)] = Field(
        default_factory=lambda: MonitorStage.model_validate({}),
        alias="monitorStage",
        description="Of the Hub pipeline: the user, and the Vault that holds the recording.",
    )


class RunDevice(_Wire):
    """The camera of a workflow run, and where its recordings are."""

    key: _Text = Field(None, alias="deviceKey", description="The camera's key.")
    name: _Text = Field(None, alias="deviceName", description="The camera's name.")
    provider: _Name = Field(description="The storage provider that holds the recording.")
    storage_solution: _Text = Field(
        None, alias="storageSolution", description="The storage solution, such as kstorage."
    )


class WorkflowRun(_Wire):
    """The message by which Kerberos Hub hands a recording to a workflow's worker."""

    key: _Key = Field(description="Name of the recording in its storage provider.")
    run_id: _Name = Field(alias="runId", description="Hub's name for this run.")
    device: RunDevice = Field(description="The camera.")

    def as_event(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The same as an event that Kerberos Vault would send."""
        camera = self.device.key or self.device.name
        return {
            "source": self.device.provider,
            "provider": self.device.storage_solution,
            "traceId": document.get("traceId"),
            "storage": document.get("storage"),
            "payload": {
                "key": self.key,
                "signedUrl": document.get("signedUrl"),
                "metadata": {"event-instancename": camera} if camera else {},
            },
        }


def event_schema() -> dict[str, Any]:
    """JSON Schema of what is accepted as an event."""
    schema = EventMessage.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema
