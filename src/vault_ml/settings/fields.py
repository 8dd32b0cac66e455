"""`Settings`: every variable, with its default, its bounds and what an operator sees of it.

A field `queue_name` is read from the variable `QUEUE_NAME`, or from one of its `ALIASES`.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from platformdirs import user_cache_path, user_data_path
from pydantic import (
    BeforeValidator,
    ByteSize,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from vault_ml.brokers.amqp_addresses import parse_addresses
from vault_ml.brokers.dead_letter import dead_letter_name
from vault_ml.hub.vocabulary import HUB_WORDS
from vault_ml.stores import address as addresses
from vault_ml.tracking.distance import Distance
from vault_ml.vault.addresses import Origins

# Names that the successors of the original use. Ours, the original's, wins when both are set.
ALIASES: dict[str, tuple[str, ...]] = {
    "queue_name": ("KAFKA_QUEUE_NAME",),
    "queue_target": ("TARGET_QUEUE_NAME", "WORKFLOWS_QUEUE"),
    "aws_region": ("AWS_DEFAULT_REGION",),
    "rabbitmq_host": ("QUEUE_HOST",),
    "rabbitmq_exchange": ("QUEUE_EXCHANGE",),
    "rabbitmq_username": ("QUEUE_USERNAME",),
    "rabbitmq_password": ("QUEUE_PASSWORD",),
    "vault_api_url": ("STORAGE_URI", "KERBEROS_STORAGE_URI"),
    "vault_access_key": ("STORAGE_ACCESS_KEY", "KERBEROS_STORAGE_ACCESS_KEY"),
    "vault_secret_key": ("STORAGE_SECRET_KEY", "STORAGE_SECRET", "KERBEROS_STORAGE_SECRET"),
    "number_of_predictions": ("MAX_NUMBER_OF_PREDICTIONS",),
    "confidence_threshold": ("CLASSIFICATION_THRESHOLD",),
    "move_distance": ("MIN_DISTANCE",),
}

# What the README prints where the default is computed, or depends on the machine.
DEFAULT_TEXT: dict[str, str] = {
    "message_vault_origins": "none with VAULT_API_URL, * without",
    "queue_dead_letter": "<QUEUE_NAME>.dlq",
    "rabbitmq_delivery_limit": "the broker's",
    "kafka_security": "PLAINTEXT",
    "kafka_mechanism": "PLAIN, with a username",
    "model_dir": "~/.local/share/vault-ml/models",
    "cache_dir": "~/.cache/vault-ml",
    "worker_concurrency": "auto",
    "allowed_labels": "all",
    "allowed_classifications": "all",
    "number_of_predictions": "5; 100 with FRAME_SAMPLING=fps",
    "frame_sampling": "keyframe; fps with CLASSIFICATION_FPS; exact with PRESET=parity",
    "precision": "fp32; int8 with PRESET=fast",
    "input_shape": "square; rect with PRESET=fast",
    "classification_fps": "3 with FRAME_SAMPLING=fps",
    "result_profile": "vault; hub where QUEUE_TARGET is one of Hub's queues",
    "hub_labels": ",".join(f"{ours}={hubs}" for ours, hubs in HUB_WORDS.items()),
    "recording_max_bytes": "1GiB",
    "decode_memory_bytes": "2GiB",
}

# Values that are understood but whose feature is not built. Taking them silently would be a lie.
# Field -> value -> what to do instead.
NOT_YET: dict[str, dict[str, str]] = {
    "runtime": {"triton": "use auto, or one of the others"},
    "result_profile": {"both": "use vault or hub"},
}

# Options of librdkafka that our delivery contract or another setting owns.
_OWNED_KAFKA_OPTIONS: dict[str, str] = {
    "bootstrap.servers": "set KAFKA_BROKER",
    "metadata.broker.list": "set KAFKA_BROKER",
    "group.id": "set KAFKA_GROUP",
    "sasl.username": "set KAFKA_USERNAME",
    "sasl.password": "set KAFKA_PASSWORD",
    "sasl.mechanism": "set KAFKA_MECHANISM",
    "sasl.mechanisms": "set KAFKA_MECHANISM",
    "security.protocol": "set KAFKA_SECURITY",
    "enable.auto.commit": "offsets are committed only when the work is done",
    "enable.auto.offset.store": "offsets are committed only when the work is done",
}

_BROKER = re.compile(r"(?:[A-Za-z_]+://)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
# Of Hub's pipeline; `.fifo` is part of the name on every broker.
_HUB_QUEUE = re.compile(r"(kcloud-[a-z0-9-]+|hub-workflows)-queue(\.fifo)?")
# What NUMBER_OF_PREDICTIONS and CLASSIFICATION_FPS are when unset. A hundred frames of YOLOv3's
# size are 110 MB of memory for each recording in flight.
_FRAMES, _MOST_FRAMES, _FRAMES_PER_S = 5, 100, 3.0
_LABEL_SEPARATOR = re.compile(r"\s*,\s*")
_MAX_PORT = 65535


def _wrong(sentence: str) -> PydanticCustomError:
    """A problem in our own words (the braces of a template would be filled in by pydantic)."""
    return PydanticCustomError("vault_ml", "{sentence}", {"sentence": sentence})


def _labels(value: object) -> object:
    if not isinstance(value, str):
        return value
    return frozenset(label for label in _LABEL_SEPARATOR.split(value.strip()) if label) or None


def _options(value: object) -> object:
    """`key=value,key=value`, or a JSON object of scalars, as text to text."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        try:
            loaded = json.loads(value)
        except ValueError:
            raise _wrong("looks like JSON but is not") from None
        if any(isinstance(item, dict | list) or item is None for item in loaded.values()):
            raise _wrong("the values must be texts, numbers or booleans")
        return {key: item if isinstance(item, str) else json.dumps(item)
                for key, item in loaded.items()}  # fmt: skip
    pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
    if any(not name.strip() or not equals for name, equals, _ in pairs):
        raise _wrong("must be key=value,key=value or a JSON object")
    return {name.strip(): text.strip() for name, _, text in pairs}


def _distance(value: object) -> object:
    """Pixels, or a share of the diagonal with `%`; 0 is the same as unset."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise _wrong("must be a number of pixels, or a number followed by %")
    return Distance(number, is_percent=text.endswith("%")) if number else None


def _class_ids(value: object) -> object:
    """`0, 2, 7`: numbers of classes, as the successors write them."""
    if not isinstance(value, str):
        return value
    items = [item for item in _LABEL_SEPARATOR.split(value.strip()) if item]
    if any(not (item.isascii() and item.isdigit()) for item in items):
        raise _wrong("must be numbers of classes, such as 0, 2, 7; for names use ALLOWED_LABELS")
    return frozenset(int(item) for item in items) or None


def _words(value: object) -> object:
    if not isinstance(value, str):
        return value
    return {} if value.strip().lower() == "none" else _options(value)


def _origins(value: object) -> object:
    if not isinstance(value, str):
        return value
    items = [item.strip() for item in value.split(",") if item.strip()]
    try:
        return Origins.parse([] if items == ["none"] else items)
    except ValueError as error:
        raise _wrong(f"must be {error}") from None


def list_of_keys(text: str) -> tuple[str, ...]:
    """RECORDING_KEYS: `a,b`, or a JSON list where a key holds a comma."""
    if not text.lstrip().startswith("["):
        return tuple(dict.fromkeys(key for key in text.split(",") if key))
    try:
        keys = json.loads(text)
    except ValueError:
        raise _wrong("looks like JSON but is not") from None
    if any(not isinstance(key, str) or not key for key in keys):
        raise _wrong("must be a list of texts")
    return tuple(dict.fromkeys(keys))


class Settings(BaseSettings):
    """What the worker runs with. Built by `load`, which also checks how values fit together."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_ignore_empty=True,
        hide_input_in_errors=True,
        validate_default=False,
        protected_namespaces=(),
    )

    # --- queue -----------------------------------------------------------------------------------
    queue_system: Literal["KAFKA", "SQS", "RABBITMQ"] = Field(
        "KAFKA", description="The message broker: KAFKA, SQS or RABBITMQ."
    )
    queue_name: str = Field(
        min_length=1,
        description="The topic or queue to read: the one that the integration in Kerberos Vault "
        "writes to. For SQS a name or a URL.",
    )
    queue_target: str | None = Field(
        None,
        description="The topic or queue that results are written to. Empty: nothing is published.",
    )
    queue_dead_letter: str | None = Field(
        None,
        description="Where events go that can never be processed, with their original bytes and "
        "the reason. SQS: `<QUEUE_NAME>-dlq`, with `.fifo` kept at the end.",
    )
    kafka_broker: str | None = Field(
        None,
        description="Kafka's addresses, `host:port,host:port`. Required with QUEUE_SYSTEM=KAFKA.",
    )
    kafka_group: str = Field(
        "vault-ml",
        min_length=1,
        description="The consumer group. Workers with the same group share the events.",
    )
    kafka_username: str | None = Field(None, description="User name for SASL.")
    kafka_password: SecretStr | None = Field(None, description="Password for SASL.")
    kafka_mechanism: (
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "OAUTHBEARER"] | None
    ) = Field(None, description="SASL mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, ...")
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] | None = Field(
        None, description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."
    )
    kafka_options: Annotated[dict[str, str], BeforeValidator(_options)] = Field(
        default_factory=dict,
        description="More librdkafka options, `key=value,key=value` or a JSON object, such as "
        "`ssl.ca.location=/certs/ca.pem`.",
    )
    kafka_transactions: bool = Field(
        False,
        description="Results and dead letters become visible together with the settlement of "
        "their event, by a Kafka transaction: readers of committed messages "
        "(`isolation.level=read_committed`) see each once. Needs Kafka 2.5 or newer.",
    )
    sqs_endpoint_url: str | None = Field(
        None,
        description="Address of a service that speaks SQS, such as a VPC endpoint or an emulator. "
        "Unset: AWS_ENDPOINT_URL_SQS or AWS_ENDPOINT_URL if set, else AWS itself.",
    )
    sqs_visibility_s: int = Field(
        120,
        ge=2,
        le=43200,
        description="How long SQS hides an event that we work on, seconds. Extended while work "
        "goes on, so recordings may take longer; a worker that dies holds its events this long.",
    )
    aws_region: str | None = Field(
        None,
        description="AWS region of the queues. Unset: that of AWS's own configuration, or of a "
        "queue's URL. Credentials come from AWS's own variables, files or roles.",
    )
    rabbitmq_host: str | None = Field(
        None,
        description="RabbitMQ's addresses, `host`, `host:port` or `amqps://host:port/vhost`, "
        "several separated by commas. Required with QUEUE_SYSTEM=RABBITMQ.",
    )
    rabbitmq_exchange: str | None = Field(
        None,
        description="RabbitMQ's exchange that results are published to, with the target's name as "
        "routing key. Empty: straight to the queue.",
    )
    rabbitmq_username: str | None = Field(
        None, description="RabbitMQ's user name; `guest` when unset."
    )
    rabbitmq_password: SecretStr | None = Field(
        None, description="RabbitMQ's password; `guest` when unset."
    )
    rabbitmq_vhost: str | None = Field(
        None,
        description="RabbitMQ's virtual host. Unset: the one in RABBITMQ_HOST, or `/`.",
    )
    rabbitmq_ca_file: Path | None = Field(
        None,
        description="Authorities that sign RabbitMQ's TLS certificate, PEM. Unset: the machine's.",
    )
    rabbitmq_ack_timeout_s: float = Field(
        1800.0,
        allow_inf_nan=False,
        ge=0,
        description="RabbitMQ's `consumer_timeout`, seconds: it takes an event back that is not "
        "acknowledged in this time. Work that cannot fit is refused at start. 0: it has none.",
    )
    rabbitmq_delivery_limit: Annotated[int | None, Field(ge=0)] = Field(
        None,
        description="How often RabbitMQ delivers one event before it gives up on it; 0 is without "
        "end. Unset: what the broker's version does (20 since RabbitMQ 4, before without end). "
        "A queue that we make gets this limit, 20 when unset.",
    )
    rabbitmq_management_url: str | None = Field(
        None,
        description="RabbitMQ's management API, such as `http://rabbitmq:15672`. With it the "
        "queue's limits and its dead-letter exchange are checked at start.",
    )

    # --- vault -----------------------------------------------------------------------------------
    vault_api_url: str | None = Field(
        None,
        description="Address of the Kerberos Vault API, with or without `/api`. Required, unless "
        "the messages bring address and keys (the Kerberos Hub pipeline).",
    )
    vault_access_key: SecretStr | None = Field(
        None, description="Access key of your Kerberos Vault account. Required with VAULT_API_URL."
    )
    vault_secret_key: SecretStr | None = Field(
        None, description="Secret key of your Kerberos Vault account. Required with VAULT_API_URL."
    )
    vault_api_prefix: str = Field(
        "auto",
        description="Path of the API below VAULT_API_URL: `auto` finds out, `/api` and `none` "
        "switch the search off.",
    )
    vault_ca_file: Path | None = Field(
        None,
        description="Certificate authorities (PEM file) to trust besides the usual ones, for a "
        "Vault or storage with a certificate of your company.",
    )
    vault_client_cert: Path | None = Field(
        None, description="Our certificate (PEM file), for a Vault or storage that asks for one."
    )
    vault_client_key: Path | None = Field(
        None,
        description="Private key of VAULT_CLIENT_CERT (PEM file), where that file does not hold "
        "it.",
    )
    message_vault_origins: Annotated[Origins | None, BeforeValidator(_origins)] = Field(
        None,
        description="What a message may name as the place of its recording, separated by commas: "
        "`https://vault.example.com`, `https://*.example.com`, `*` (any public address), `none`. "
        "Only those named here may be private addresses.",
    )
    recording_keys: SecretStr | None = Field(
        None,
        description="Keys of encrypted recordings (the Agents' AGENT_ENCRYPTION_SYMMETRIC_KEY), "
        "separated by commas or as a JSON list; tried in this order.",
    )
    recording_key_missing: Literal["retry", "dead_letter"] = Field(
        "retry",
        description="What becomes of an encrypted recording that no key fits: `retry` tries it "
        "again as any other trouble, `dead_letter` gives it up at once.",
    )
    recording_growth_timeout_s: float = Field(
        300.0,
        allow_inf_nan=False,
        ge=0,
        le=86400,
        description="How long a recording that differs from the size its event tells, and grows, "
        "is waited for without counting tries, seconds.",
    )
    fetch: Literal["auto", "whole", "ranges"] = Field(
        "auto",
        description="`ranges` fetches only the bytes that are looked at, `whole` the whole "
        "recording, `auto` ranges of recordings above 1 MiB where key frames are looked at.",
    )

    # --- what is looked at, and how --------------------------------------------------------------
    model: str = Field(
        "auto",
        min_length=1,
        description="`auto` (yolov3 if its files are in MODEL_DIR, else yolov3-tiny), a name that "
        "`vault-ml models list` knows, or a path to a `.cfg`, `.weights` or `.onnx` file; ONNX as "
        "vault-ml, Ultralytics or YOLOX export it.",
    )
    model_labels: Path | None = Field(
        None,
        description="File of class names, one a line, for a model that has none or wrong ones. "
        "Without it: a file beside the model, what an ONNX model says itself, COCO's for 80.",
    )
    model_dir: Path = Field(
        default_factory=lambda: user_data_path("vault-ml") / "models",
        description="Folder with the model files; `vault-ml models pull` writes to it.",
    )
    cache_dir: Path = Field(
        default_factory=lambda: user_cache_path("vault-ml"),
        description="Folder for converted models; may be deleted at any time.",
    )
    model_corrections: bool = Field(
        True,
        description="Mend known mistakes in published model files, such as the masks of "
        "yolov3-tiny; the log names each.",
    )
    number_of_predictions: Annotated[int | None, Field(ge=1, le=1000)] = Field(
        None,
        description="How many frames of a recording are looked at, spread evenly over all of it. "
        "With FRAME_SAMPLING=fps at most so many.",
    )
    frame_sampling: Literal["keyframe", "exact", "fps", "adaptive"] | None = Field(
        None,
        description="`keyframe` takes the key frame nearest to each wanted time (much less "
        "decoding), `exact` the frame at that time, `fps` CLASSIFICATION_FPS frames of each "
        "second, for following objects closely, `adaptive` more of them where something happens.",
    )
    classification_fps: Annotated[float | None, Field(gt=0, le=60, allow_inf_nan=False)] = Field(
        None,
        description="Frames of each second that are looked at with FRAME_SAMPLING=fps. Of a "
        "recording with more than NUMBER_OF_PREDICTIONS of them, that many, further apart.",
    )
    confidence_threshold: float = Field(
        0.5,
        allow_inf_nan=False,
        gt=0,
        le=1,
        description="Objects seen with less confidence (0 to 1) are not reported. Lower: more "
        "objects, more false ones.",
    )
    nms_threshold: float = Field(
        0.45,
        allow_inf_nan=False,
        gt=0,
        le=1,
        description="Boxes of one class that overlap more than this (intersection over union) "
        "are one object. Higher: more double boxes.",
    )
    allowed_labels: Annotated[frozenset[str] | None, BeforeValidator(_labels)] = Field(
        None,
        description="Labels that count as objects of interest, separated by commas, such as "
        "`person,car`. Others are reported but not counted.",
    )
    allowed_classifications: Annotated[frozenset[int] | None, BeforeValidator(_class_ids)] = Field(
        None,
        description="The same by the numbers of the model's classes, such as `0,2,7`. Set one of "
        "the two.",
    )
    zones: Path | None = Field(
        None,
        description="YAML file with zones, masks, labels, confidences and sizes of interest for "
        "each camera. `vault-ml zones` checks and draws it.",
    )
    motion_region: bool = Field(
        False,
        description="Count only objects whose boxes touch the motion region that the event names. "
        "Where it names none (a continuous recording), or one that does not fit the picture, all "
        "count.",
    )
    move_distance: Annotated[Distance | None, BeforeValidator(_distance)] = Field(
        None,
        description="How far an object must travel to count, its whole way: pixels, or `5%` of the "
        "frame's diagonal. The trembling of boxes is no way. Unset or 0: what stands counts too.",
    )
    min_static_distance: Annotated[Distance | None, BeforeValidator(_distance)] = Field(
        None,
        description="How far from its first place an object's last must be to count: pixels, or "
        "`5%` of the frame's diagonal. With MOVE_DISTANCE both must be reached.",
    )
    static_memory: str | None = Field(
        None,
        description="Where it is remembered what stands at each camera, so that a parked car "
        "counts once and not in every recording: `sqlite:/path/scenes.db` for the workers of one "
        "host, `redis://host:port/0` (or `rediss://`) for many. Unset: each recording is judged by "
        "itself.",
    )
    static_memory_username: str | None = Field(
        None, description="User name for Redis. Unset: its default user."
    )
    static_memory_password: SecretStr | None = Field(None, description="Password for Redis.")
    static_memory_max_age_s: float = Field(
        7 * 24 * 3600,
        allow_inf_nan=False,
        ge=60,
        le=366 * 24 * 3600,
        description="A camera of which no recording came for longer is forgotten, seconds.",
    )
    min_detections: int = Field(
        1,
        ge=1,
        le=1000,
        description="In how many looked-at frames an object must be seen to count.",
    )
    preset: Literal["default", "parity", "fast"] = Field(
        "default",
        description="`fast` is FRAME_SAMPLING=keyframe, PRECISION=int8 and INPUT_SHAPE=rect; "
        "`parity` is exact, fp32 and square, as the original looked. What is set by itself wins.",
    )
    precision: Literal["fp32", "fp16", "int8"] | None = Field(
        None,
        description="Number format of the network: `fp32`; `int8`, twice as fast on CPUs, after "
        "`vault-ml quantize`; `fp16` with RUNTIME=tensorrt. The last two move borderline boxes.",
    )
    input_shape: Literal["square", "rect"] | None = Field(
        None,
        description="Shape of the network's input: `square`, or `rect`, as small as the frame's "
        "shape allows: 1.7 times faster for 16:9, and it moves borderline boxes.",
    )
    runtime: Literal["auto", "onnxruntime", "openvino", "mnn", "cuda", "tensorrt"] = Field(
        "auto",
        description="What runs the network. `auto` measures what is installed, once per model and "
        "machine, and takes the fastest. `onnxruntime`, `openvino` and `mnn` are libraries; `cuda` "
        "and `tensorrt` are ONNX Runtime on an NVIDIA GPU, and nothing else.",
    )

    # --- what is done with it --------------------------------------------------------------------
    forwarding_media: bool = Field(
        False,
        description="Ask Kerberos Vault to forward the recording when the object threshold is "
        "reached.",
    )
    forwarding_metadata: bool = Field(
        False,
        description="Forward the result to Kerberos Vault's metadata address when the object "
        "threshold is reached.",
    )
    forwarding_object_threshold: int = Field(
        1,
        ge=0,
        description="How many objects of interest one looked-at frame must show for the "
        "recording to be forwarded. 0 forwards every recording.",
    )
    hub_api_url: str | None = Field(
        None, description="Address of Kerberos Hub's API, for forwarding to Hub itself."
    )
    hub_cloud_key: SecretStr | None = Field(
        None,
        description="Key for Kerberos Hub (`X-Kerberos-Cloud-Key`). Required with HUB_API_URL.",
    )
    forwarding_hub: bool = Field(
        False,
        description="Post the result to Hub's queue route when the object threshold is reached. "
        "Unverified against a live Hub.",
    )
    forwarding_detections: bool = Field(
        False,
        description="Post what was seen to Hub's detections address when the object threshold is "
        "reached. Unverified against a live Hub.",
    )
    hub_queue_path: str = Field(
        "/queue", pattern=r"^/[^\s?#]*$", description="Path of Hub's queue route below HUB_API_URL."
    )
    hub_detections_path: str = Field(
        "/detections",
        pattern=r"^/[^\s?#]*$",
        description="Path of Hub's detections address below HUB_API_URL.",
    )
    forward_metadata_path: str = Field(
        "/storage/forward/metadata",
        pattern=r"^/[^\s?#]*$",
        description="Path of the metadata address below the API. Unverified: no public source "
        "shows it.",
    )
    forward_metadata_method: Literal["POST", "PUT", "PATCH"] = Field(
        "POST", description="HTTP method for the metadata address: POST, PUT or PATCH."
    )
    remove_after_processed: bool = Field(
        False,
        description="Remove the recording from Kerberos Vault once its result is confirmed. One "
        "that was only queued for forwarding is kept.",
    )
    remove_after_forward_queued: bool = Field(
        False,
        description="Remove also recordings whose forwarding the Vault has only queued. The "
        "recording is lost if the forwarding fails later.",
    )
    result_profile: Literal["vault", "hub"] | None = Field(
        None,
        description="Shape of the result message: `vault`, the original's, or `hub`, what Kerberos "
        "Hub's pipeline reads.",
    )
    hub_labels: Annotated[dict[str, str] | None, BeforeValidator(_words)] = Field(
        None,
        description="With RESULT_PROFILE=hub: Hub's words for the model's labels, "
        "`label=word,label=word`. `none` translates nothing.",
    )
    result_extras: bool = Field(
        True,
        description="Add `data.run` to the result: run id, frame times, count, model, limits. "
        "`false` gives the original's message, not a key more.",
    )
    result_max_bytes: ByteSize = Field(
        ByteSize(980_000),
        ge=10_000,
        description="Largest result message, bytes. Above it `data.run` loses its details first. "
        "Keep it under the broker's limit (Kafka: 1000012).",
    )

    # --- patience and limits ---------------------------------------------------------------------
    retry_max_attempts: int = Field(
        5, ge=1, le=1000, description="Tries for one event before it becomes a dead letter."
    )
    retry_backoff_s: float = Field(
        2.0,
        allow_inf_nan=False,
        gt=0,
        le=3600,
        description="Wait before the second try, seconds; doubles each time.",
    )
    retry_backoff_max_s: float = Field(
        300.0,
        allow_inf_nan=False,
        gt=0,
        le=86400,
        description="Longest wait between two tries, seconds.",
    )
    recording_max_bytes: ByteSize = Field(
        ByteSize(1024**3),
        ge=1,
        description="Largest recording that is fetched, bytes (`500MB`, `1GiB`); a larger one "
        "becomes a dead letter.",
    )
    recording_timeout_s: float = Field(
        300.0,
        allow_inf_nan=False,
        gt=0,
        le=86400,
        description="Longest time for fetching one recording, seconds.",
    )
    decode_timeout_s: float = Field(
        120.0,
        allow_inf_nan=False,
        gt=0,
        le=86400,
        description="Longest time for decoding one recording, seconds; then the decoder is "
        "replaced and the event tried again.",
    )
    decode_memory_bytes: ByteSize = Field(
        ByteSize(2 * 1024**3),
        ge=256 * 1024**2,
        description="Memory one decoder process may use, bytes.",
    )
    detector_timeout_s: float = Field(
        120.0,
        allow_inf_nan=False,
        gt=0,
        le=86400,
        description="Longest time for one run of the network, seconds; then the detector is "
        "replaced.",
    )
    worker_concurrency: Annotated[int | None, Field(ge=1, le=64)] = Field(
        None,
        description="Recordings in flight at once; `auto` is enough to keep the detector busy.",
    )
    drain_timeout_s: float = Field(
        25.0,
        allow_inf_nan=False,
        ge=0,
        le=3600,
        description="Time to finish what is in flight after SIGTERM, seconds; the rest goes back "
        "to the queue. Keep it under Kubernetes' grace period: 30 where none is set.",
    )

    # --- finished runs ---------------------------------------------------------------------------
    outcomes: str | None = Field(
        None,
        description="Where finished runs are remembered, so that an event that is delivered again "
        "is settled without working and publishing again: `sqlite:/path/outcomes.db` for the "
        "workers of one host, `redis://host:port/0` (or `rediss://`) for many. Unset: nowhere; "
        "repeated results carry the same run id.",
    )
    outcomes_username: str | None = Field(
        None, description="User name for Redis. Unset: its default user."
    )
    outcomes_password: SecretStr | None = Field(None, description="Password for Redis.")
    outcomes_max_age_s: float = Field(
        7 * 24 * 3600,
        allow_inf_nan=False,
        ge=60,
        le=366 * 24 * 3600,
        description="How long a finished run is remembered, seconds. As long as the broker may "
        "deliver an event again: Kafka's retention is seven days by default.",
    )
    outcomes_max_count: int = Field(
        500_000,
        ge=100,
        le=100_000_000,
        description="How many finished runs are remembered; of more, the oldest are forgotten. "
        "About 250 bytes each.",
    )

    # --- for the operator ------------------------------------------------------------------------
    log_format: Literal["auto", "console", "json", "classic"] = Field(
        "auto",
        description="`auto` is `console` on a terminal and `json` elsewhere; `classic` prints "
        "what the first vault-ml printed.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="DEBUG, INFO, WARNING or ERROR."
    )
    web_address: str = Field(
        "127.0.0.1:8080",
        description="Where `/healthz`, `/readyz` and `/metrics` are served, `host:port`; `off` "
        "serves nothing.",
    )

    otel_exporter_otlp_endpoint: str | None = Field(
        None,
        description="Where traces go, by OTLP over HTTP: `http://collector:4318`. Other `OTEL_` "
        "variables (headers, service name, sampler) mean what OpenTelemetry's SDK says. Needs the "
        "extra `tracing`.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # pydantic-settings' signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what `load` passes: one reading of the environment, so what it reports is true.

        No `.env` file, no secrets folder: a file nobody thought of must not steer a worker.
        """
        return (init_settings,)

    @field_validator(
        "queue_system", "kafka_mechanism", "kafka_security", "log_level", "forward_metadata_method",
        "recording_key_missing", "fetch", "frame_sampling", "precision", "input_shape", "runtime",
        "preset",
        "result_profile", "log_format",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _choice(cls, value: object, info: ValidationInfo) -> object:
        """Choices in any case; those of later versions are named as such."""
        if not isinstance(value, str):
            return value
        field = str(info.field_name)
        instead = NOT_YET.get(field, {}).get(value.lower())
        if instead is not None:
            raise _wrong(f"{value} is not in this version yet; {instead}")
        default = cls.model_fields[field].default
        is_lower = default is None or (isinstance(default, str) and default.islower())
        is_lower = is_lower and not field.startswith("kafka_")
        return value.lower() if is_lower else value.upper()

    @field_validator("worker_concurrency", mode="before")
    @classmethod
    def _auto(cls, value: object) -> object:
        return None if isinstance(value, str) and value.lower() == "auto" else value

    @field_validator("recording_keys")
    @classmethod
    def _keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            list_of_keys(value.get_secret_value())
        return value

    @field_validator("kafka_broker")
    @classmethod
    def _brokers(cls, value: str | None) -> str | None:
        if value is None:
            return None
        addresses = [address.strip() for address in value.split(",")]
        if any(not _BROKER.fullmatch(address) for address in addresses):
            raise _wrong("must be host:port, several separated by commas")
        return ",".join(addresses)

    @field_validator("kafka_options")
    @classmethod
    def _own_options(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name in _OWNED_KAFKA_OPTIONS:
                raise _wrong(f"{name} cannot be set here; {_OWNED_KAFKA_OPTIONS[name]}")
        return value

    @field_validator("vault_api_url", "hub_api_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            is_complete = parts.scheme in {"http", "https"} and bool(parts.hostname)
            _ = parts.port  # raises when it is not a number
        except ValueError:
            is_complete = False
        if not is_complete or re.search(r"\s", value):
            raise _wrong("must be an address such as https://vault.example.com/api")
        if "@" in parts.netloc:
            raise _wrong("must not hold a user or password; use VAULT_ACCESS_KEY and _SECRET_KEY")
        if parts.query or parts.fragment:
            raise _wrong("must not have a ? or # part")
        return value

    @field_validator("aws_region")
    @classmethod
    def _region(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[a-z0-9-]+", value):
            raise _wrong("must be a region such as eu-west-1")
        return value

    @field_validator("rabbitmq_host")
    @classmethod
    def _nodes(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                parse_addresses(value)
            except ValueError as error:
                raise _wrong(str(error)) from None
        return value

    @field_validator("sqs_endpoint_url", "rabbitmq_management_url")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            is_plain = parts.scheme in {"http", "https"} and bool(parts.hostname)
            _ = parts.port  # raises when it is not a number
        except ValueError:
            is_plain = False
        if not is_plain or re.search(r"\s", value) or "@" in value or "?" in value or "#" in value:
            raise _wrong("must be an address such as http://localhost:4566, without user, ? or #")
        return value.rstrip("/")

    @field_validator("vault_api_prefix")
    @classmethod
    def _prefix(cls, value: str) -> str:
        if value.lower() in {"auto", "none"}:
            return value.lower()
        if not re.fullmatch(r"/[^\s?#]*", value):
            raise _wrong("must be auto, none or a path that starts with /")
        return value.rstrip("/") or "none"

    @field_validator("outcomes", "static_memory")
    @classmethod
    def _store(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None:
            try:
                addresses.parse(value, str(info.field_name).upper())
            except ValueError as error:
                raise _wrong(str(error)) from None
        return value

    @field_validator("web_address")
    @classmethod
    def _address(cls, value: str) -> str:
        if value.lower() == "off":
            return "off"
        host, _, port = value.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
            raise _wrong("must be host:port, such as 0.0.0.0:8080, or off")
        return value

    @property
    def dead_letter_queue(self) -> str:
        """`QUEUE_DEAD_LETTER`, or the default made from the queue's name."""
        return self.queue_dead_letter or dead_letter_name(self.queue_name, self.queue_system)

    @property
    def sampling(self) -> str:
        """`FRAME_SAMPLING`, or `fps` where frames of each second are asked for."""
        if self.frame_sampling is None and self.classification_fps is None:
            return "exact" if self.preset == "parity" else "keyframe"
        return self.frame_sampling or "fps"

    @property
    def number_format(self) -> str:
        """`PRECISION`, or the preset's."""
        return self.precision or ("int8" if self.preset == "fast" else "fp32")

    @property
    def shape(self) -> str:
        """`INPUT_SHAPE`, or the preset's."""
        return self.input_shape or ("rect" if self.preset == "fast" else "square")

    @property
    def frames_per_s(self) -> float | None:
        """Frames of each second; None where they are spread over the recording."""
        return (self.classification_fps or _FRAMES_PER_S) if self.sampling == "fps" else None

    @property
    def most_frames(self) -> int:
        """`NUMBER_OF_PREDICTIONS`, or its default for the way of sampling."""
        default = _MOST_FRAMES if self.sampling == "fps" else _FRAMES
        return default if self.number_of_predictions is None else self.number_of_predictions

    @property
    def profile(self) -> str:
        """`RESULT_PROFILE`, or that of who reads the results."""
        return self.result_profile or ("hub" if is_hub_queue(self.queue_target) else "vault")

    @property
    def origins(self) -> Origins:
        """`MESSAGE_VAULT_ORIGINS`, or the default: all that is public where no Vault is set."""
        if self.message_vault_origins is not None:
            return self.message_vault_origins
        return Origins(any_public=self.vault_api_url is None)

    @property
    def keys_of_recordings(self) -> tuple[str, ...]:
        """`RECORDING_KEYS`, one by one."""
        keys = self.recording_keys
        return () if keys is None else list_of_keys(keys.get_secret_value())

    @property
    def web_host_port(self) -> tuple[str, int] | None:
        """Where to serve health and metrics; None when switched off."""
        if self.web_address == "off":
            return None
        host, _, port = self.web_address.rpartition(":")
        return host.strip("[]"), int(port)


def is_hub_queue(name: str | None) -> bool:
    """Whether a queue is one of Kerberos Hub's pipeline, by its name."""
    return name is not None and bool(_HUB_QUEUE.fullmatch(name))


def variable(field: str) -> str:
    """The variable of a field: `queue_name` -> `QUEUE_NAME`."""
    return field.upper()


def names(field: str) -> tuple[str, ...]:
    """All variables that set a field, the winning one first."""
    return (variable(field), *ALIASES.get(field, ()))


def is_secret(field: str) -> bool:
    """Whether the field's value must never be shown."""
    annotation: Any = Settings.model_fields[field].annotation
    return "SecretStr" in str(annotation)


def may_be_a_file(field: str) -> bool:
    """Whether `<NAME>_FILE` is read too: secrets, and the user names that go with them."""
    return is_secret(field) or field.endswith("_username")
