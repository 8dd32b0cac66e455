"""The environment -> `Settings`, or one `ConfigError` that lists every problem."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from vault_ml.brokers.dead_letter import dead_letter_name
from vault_ml.brokers.queue_names import is_url, sqs_name, sqs_problem
from vault_ml.errors import ConfigError
from vault_ml.settings.fields import (
    Settings,
    is_hub_queue,
    is_secret,
    list_of_keys,
    may_be_a_file,
    names,
    variable,
)

_SHOWN_CHARACTERS = 60
# Values of these may hold a credential that somebody put in the wrong place.
_NOT_SHOWN = {
    "vault_api_url", "message_vault_origins", "kafka_options", "kafka_broker", "rabbitmq_host",
    "sqs_endpoint_url", "rabbitmq_management_url", "outcomes", "hub_api_url",
}  # fmt: skip
_REQUIRED_WHY = {
    "queue_name": "set it to the topic that Kerberos Vault writes its events to",
    "kafka_broker": "set it to the address of your Kafka broker, host:port",
    "rabbitmq_host": "set it to the address of your RabbitMQ, host:port",
    "vault_api_url": "set it to the address of the Kerberos Vault API",
    "vault_access_key": "set it to the access key of your Kerberos Vault account",
    "vault_secret_key": "set it to the secret key of your Kerberos Vault account",
}
_VAULT = ("vault_api_url", "vault_access_key", "vault_secret_key")

# Kubernetes puts these beside ours when a service is called `kafka`, `vault` or `rabbitmq`.
_SERVICE_LINK = re.compile(
    r".+_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
# Docker's and Kubernetes' secrets are files.
_FILE = "_FILE"
_LONGEST_SECRET_BYTES = 64 * 1024
_CLOSE_ENOUGH = 0.85  # KAFKA_BROKERS, VAULT_API_UR and QUEUE_NAM are; KAFKA_HEAP_OPTS is not
# Settings of the successors, and of later versions of ours, that would change the outcome if they
# were obeyed. They are not, and whoever sets one is told.
_IGNORED_YET = (
    "CONDITION", "TRANSLATED_CLASSIFICATIONS",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Given:
    """One value of the environment: the variable it came from, its text."""

    variable: str
    text: str


def given(environ: Mapping[str, str]) -> dict[str, Given]:
    """What the environment sets, by field. Empty and blank values are as good as unset.

    Blanks around a value are dropped; a secret loses only the line break that files end with.
    Secrets and user names may be in files: `KAFKA_PASSWORD_FILE=/run/secrets/kafka`.

    Raises:
        ConfigError: such a file cannot be read, is empty, or no text.
    """
    found: dict[str, Given] = {}
    for field in Settings.model_fields:
        for name in names(field):
            value = _value(environ, field, name)
            if value is not None and value.text.strip():
                text = value.text.strip("\r\n") if is_secret(field) else value.text.strip()
                found[field] = Given(value.variable, text)
                break
    return found


def _value(environ: Mapping[str, str], field: str, name: str) -> Given | None:
    """What `name` sets, or the file that `<name>_FILE` names where that may be; the former wins."""
    if environ.get(name, "").strip():
        return Given(name, environ[name])
    path = environ.get(f"{name}{_FILE}", "").strip()
    if not path or not may_be_a_file(field):
        return None
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LONGEST_SECRET_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise ConfigError(
            f"{name}{_FILE}: {path} cannot be read ({error.strerror or type(error).__name__}); "
            "name a file that this user may read"
        ) from error
    except UnicodeDecodeError:
        raise ConfigError(f"{name}{_FILE}: {path} is no text in UTF-8") from None
    if len(content) > _LONGEST_SECRET_BYTES or not text.strip():
        reason = "is empty" if not text.strip() else "is too long for a secret"
        raise ConfigError(f"{name}{_FILE}: {path} {reason}")
    return Given(f"{name}{_FILE}", text)


def load(environ: Mapping[str, str]) -> Settings:
    """Read the settings.

    Args:
        environ: variable names to values, such as `os.environ`.

    Raises:
        ConfigError: something is missing or wrong. The message has one line per problem, naming
            the variable as it was set; a secret's value is never in it.
    """
    found = given(environ)
    problems: dict[str, str] = {}  # by field, so that a field is complained about once
    settings: Settings | None = None
    try:
        settings = Settings.model_validate({field: value.text for field, value in found.items()})
    except ValidationError as invalid:
        for error in invalid.errors(include_url=False, include_context=True, include_input=False):
            field = str(error["loc"][0])
            problems.setdefault(field, _sentence(field, dict(error), found.get(field)))
    for field, sentence in _contradictions(found).items():
        problems.setdefault(field, sentence)
    for field, value in found.items():
        if not is_secret(field) and _is_quoted(value.text):
            problems[field] = (
                f"{value.variable}: the quotes are part of the value; remove them "
                "(docker --env-file keeps quotes)"
            )
    if problems or settings is None:
        order = {field: position for position, field in enumerate(Settings.model_fields)}
        lines = [problems[field] for field in sorted(problems, key=order.__getitem__)]
        lines += _mistyped(environ)  # often the very reason why something is missing
        raise ConfigError("\n".join(lines)) from None
    return settings


def keys_of_recordings(environ: Mapping[str, str]) -> tuple[str, ...]:
    """RECORDING_KEYS alone, for commands that need no other setting.

    Raises:
        ConfigError: they are no list, or in a file that cannot be read.
    """
    try:
        value = _value(environ, "recording_keys", "RECORDING_KEYS")
        return list_of_keys("" if value is None else value.text.strip("\r\n"))
    except PydanticCustomError as error:
        raise ConfigError(f"RECORDING_KEYS: {error.message()}") from None


def notices(environ: Mapping[str, str]) -> list[str]:
    """Sentences about a configuration that works but may not be what was meant.

    Args:
        environ: as for `load`.
    """
    sentences = _mistyped(environ)
    for field in Settings.model_fields:
        chosen, *others = [name for name in names(field) if environ.get(name, "").strip()] or [""]
        sentences += [
            f"{chosen} and {other} are both set and differ; {chosen} is used."
            for other in others
            if environ[other].strip() != environ[chosen].strip()
        ]
        sentences += [
            f"{name} and {name}{_FILE} are both set; the file is not read."
            for name in names(field)
            if may_be_a_file(field)
            and environ.get(name, "").strip()
            and environ.get(f"{name}{_FILE}", "").strip()
        ]
    sentences += [
        f"{name} is set, but what it does is not in this version yet; it is ignored."
        for name in _IGNORED_YET
        if environ.get(name, "").strip() not in {"", "0"}
    ]
    found = given(environ)
    if not any(field in found for field in _VAULT):
        sentences.append(
            "VAULT_API_URL, VAULT_ACCESS_KEY and VAULT_SECRET_KEY are not set: recordings are "
            "fetched from the Vault that each message names, as in the Kerberos Hub pipeline."
        )
    if "result_profile" not in found and "queue_target" in found:
        queue = found["queue_target"].text
        if is_hub_queue(queue):
            sentences.append(
                f"QUEUE_TARGET {queue} is one of Kerberos Hub's queues, so results have Hub's "
                "shape (RESULT_PROFILE=hub)."
            )
    is_on = {field: value.text.lower() in {"true", "1", "yes", "on", "y", "t"}
             for field, value in found.items()}  # fmt: skip
    if (
        is_on.get("remove_after_processed")
        and "queue_target" not in found
        and not is_on.get("forwarding_media")
        and not is_on.get("forwarding_metadata")
    ):
        sentences.append(
            "REMOVE_AFTER_PROCESSED is on, but nothing is published and nothing forwarded: "
            "recordings will be removed and what was seen in them told to no one."
        )
    return sentences


def _mistyped(environ: Mapping[str, str]) -> list[str]:
    return [
        f"{name} is set but unknown; did you mean {close}?"
        for name, close in unknown_variables(environ)
    ]


def unknown_variables(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Variables that look like a mistyped one of ours.

    Args:
        environ: as for `load`.

    Returns:
        (the variable as set, the one that may be meant), sorted.
    """
    known = [name for field in Settings.model_fields for name in names(field)]
    known += [
        f"{name}{_FILE}"
        for field in Settings.model_fields
        if may_be_a_file(field)
        for name in names(field)
    ]
    suspects = []
    for name in sorted(set(environ) - set(known) - set(_IGNORED_YET)):
        if _SERVICE_LINK.fullmatch(name) or name.startswith("AWS_"):  # AWS has many of its own
            continue
        close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=_CLOSE_ENOUGH)
        # Short names without a room in front (MODEL, RUNTIME) are close to anybody's.
        if close and ("_" in name or name.upper() == close[0]):
            suspects.append((name, close[0]))
    return suspects


def _sentence(field: str, error: dict[str, Any], value: Given | None) -> str:
    """One line about one field."""
    if value is None:  # only a required one can be wrong without being set
        return _missing(field)
    context = error.get("ctx", {})
    shown = ""
    if not is_secret(field) and field not in _NOT_SHOWN:
        shown = f" (it is {value.text[:_SHOWN_CHARACTERS]!r})"
    kind = str(error["type"])
    if kind == "vault_ml":
        return f"{value.variable}: {context['sentence']}{shown}"
    if kind == "literal_error":
        return f"{value.variable}: must be one of {_choices(context['expected'])}{shown}"
    if kind.startswith("bool_"):
        return f"{value.variable}: must be true or false{shown}"
    if kind.startswith("int_"):
        return f"{value.variable}: must be a whole number{shown}"
    if kind.startswith("float_") or kind == "finite_number":
        return f"{value.variable}: must be a number{shown}"
    if kind in _COMPARISONS:
        name, phrase = _COMPARISONS[kind]
        return f"{value.variable}: must be {phrase} {context[name]}{shown}"
    if kind.startswith("byte_size"):
        return f"{value.variable}: must be a number of bytes, such as 500MB or 1GiB{shown}"
    if kind == "string_pattern_mismatch":
        return f"{value.variable}: must be a path that starts with /{shown}"
    return f"{value.variable}: {error['msg']}{shown}"


_COMPARISONS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def _choices(expected: str) -> str:
    return expected.replace("'", "").replace(" or ", ", ")


def _missing(field: str) -> str:
    return f"{variable(field)} is not set; {_REQUIRED_WHY[field]}"


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"


def _contradictions(found: Mapping[str, Given]) -> dict[str, str]:
    """What is wrong between fields, by the field to change."""
    problems: dict[str, str] = {}

    def text(field: str) -> str:
        return found[field].text if field in found else ""

    queue, target, dead = text("queue_name"), text("queue_target"), text("queue_dead_letter")
    system = text("queue_system").upper() or "KAFKA"
    if queue and _is_same_queue(queue, target, system):
        problems["queue_target"] = (
            f"{found['queue_target'].variable}: is the queue that is read ({queue!r}); results "
            "would come back as events. Name another one"
        )
    if dead and any(_is_same_queue(dead, other, system) for other in (queue, target)):
        problems["queue_dead_letter"] = (
            f"QUEUE_DEAD_LETTER: is also the queue that is read or the target ({dead!r}); name "
            "another one"
        )
    if target and not dead and _is_same_queue(target, dead_letter_name(queue, system), system):
        problems["queue_target"] = (
            f"{found['queue_target'].variable}: {target!r} is where dead letters go; name another "
            "one, or set QUEUE_DEAD_LETTER"
        )
    if system in _PROBLEMS_OF_SYSTEM:
        problems |= _PROBLEMS_OF_SYSTEM[system](found)
    problems |= _vault_contradictions(found)
    problems |= _looking_contradictions(found)
    problems |= _runtime_contradictions(found)
    if {"retry_backoff_s", "retry_backoff_max_s"} <= found.keys():
        try:
            is_upside_down = float(text("retry_backoff_s")) > float(text("retry_backoff_max_s"))
        except ValueError:  # already a problem of its own
            is_upside_down = False
        if is_upside_down:
            problems["retry_backoff_s"] = "RETRY_BACKOFF_S: is longer than RETRY_BACKOFF_MAX_S"
    return problems


def _runtime_contradictions(found: Mapping[str, Given]) -> dict[str, str]:
    def text(field: str) -> str:
        return found[field].text.lower() if field in found else ""

    runtime = text("runtime") or "auto"
    precision = text("precision") or ("int8" if text("preset") == "fast" else "fp32")
    if precision == "int8" and runtime not in {"auto", "openvino"}:
        return {
            "runtime": f"RUNTIME: {runtime} does not run INT8 models; set auto or openvino, or "
            "PRECISION=fp32"
        }
    if precision == "fp16" and runtime != "tensorrt":
        return {"precision": "PRECISION: fp16 needs RUNTIME=tensorrt; set it, or use fp32 or int8"}
    return {}


def _kafka_contradictions(found: Mapping[str, Given]) -> dict[str, str]:
    problems: dict[str, str] = {}
    if "kafka_broker" not in found:
        problems["kafka_broker"] = _missing("kafka_broker")
    security = found["kafka_security"].text.upper() if "kafka_security" in found else ""
    mechanism = found["kafka_mechanism"].text.upper() if "kafka_mechanism" in found else ""
    needs_password = mechanism not in {"GSSAPI", "OAUTHBEARER"}
    if "kafka_username" in found:
        if not security:
            problems["kafka_security"] = (
                "KAFKA_SECURITY is not set though KAFKA_USERNAME is; set SASL_SSL, or "
                "SASL_PLAINTEXT where the broker offers no encryption"
            )
        elif not security.startswith("SASL_"):
            problems["kafka_security"] = (
                f"KAFKA_SECURITY: {security} never sends KAFKA_USERNAME; set SASL_SSL or "
                "SASL_PLAINTEXT, or unset the user name"
            )
        if "kafka_password" not in found and needs_password:
            problems |= {"kafka_password": "KAFKA_PASSWORD is not set though KAFKA_USERNAME is"}
    elif "kafka_password" in found:
        problems["kafka_username"] = "KAFKA_USERNAME is not set though KAFKA_PASSWORD is"
    elif security.startswith("SASL_") and needs_password:
        problems["kafka_username"] = (
            f"KAFKA_USERNAME is not set though KAFKA_SECURITY is {security}; set the user name "
            "and KAFKA_PASSWORD, or unset KAFKA_SECURITY for a broker without login"
        )
    return problems


def _sqs_contradictions(found: Mapping[str, Given]) -> dict[str, str]:
    problems: dict[str, str] = {}
    for field in ("queue_name", "queue_target", "queue_dead_letter"):
        if field in found and (problem := sqs_problem(found[field].text)):
            problems[field] = f"{found[field].variable}: {problem}"
    return problems


def _rabbitmq_contradictions(found: Mapping[str, Given]) -> dict[str, str]:
    problems: dict[str, str] = {}
    if "rabbitmq_host" not in found:
        problems["rabbitmq_host"] = _missing("rabbitmq_host")
    for is_set, missing in (
        ("rabbitmq_username", "rabbitmq_password"),
        ("rabbitmq_password", "rabbitmq_username"),
    ):
        if is_set in found and missing not in found:
            problems[missing] = f"{variable(missing)} is not set though {variable(is_set)} is"
    return problems


# One entry per broker: what is wrong between its own settings, by field.
_PROBLEMS_OF_SYSTEM: dict[str, Callable[[Mapping[str, Given]], dict[str, str]]] = {
    "KAFKA": _kafka_contradictions,
    "SQS": _sqs_contradictions,
    "RABBITMQ": _rabbitmq_contradictions,
}


def _is_same_queue(one: str, other: str, system: str) -> bool:
    """Whether two names are one queue; SQS may have one by its name and once by its URL."""
    if system == "SQS" and not (is_url(one) and is_url(other)):
        one, other = sqs_name(one), sqs_name(other)
    return bool(one) and one.rstrip("/") == other.rstrip("/")


def _looking_contradictions(found: Mapping[str, Given]) -> dict[str, str]:
    problems: dict[str, str] = {}
    for switch in ("forwarding_hub", "forwarding_detections"):
        value = found.get(switch)
        if value is not None and value.text.lower() in {"true", "1", "yes", "on", "y", "t"}:
            problems |= {
                field: f"{variable(field)} is not set though {variable(switch)} is on"
                for field in ("hub_api_url", "hub_cloud_key")
                if field not in found
            }
    if {"allowed_labels", "allowed_classifications"} <= found.keys():
        problems["allowed_classifications"] = (
            "ALLOWED_CLASSIFICATIONS: ALLOWED_LABELS is set as well; set one of the two"
        )
    sampling = found.get("frame_sampling")
    if (
        "classification_fps" in found
        and sampling
        and sampling.text.lower() in {"keyframe", "exact", "adaptive"}
    ):
        problems["classification_fps"] = (
            f"CLASSIFICATION_FPS: FRAME_SAMPLING={sampling.text} does not look at so many frames "
            "of each second; set FRAME_SAMPLING=fps, or unset one of the two"
        )
    return problems


def _vault_contradictions(found: Mapping[str, Given]) -> dict[str, str]:
    problems = {}
    missing = [field for field in _VAULT if field not in found]
    if missing and len(missing) < len(_VAULT):
        problems = {field: _missing(field) for field in missing}
    origins = found.get("message_vault_origins")
    if len(missing) == len(_VAULT) and origins is not None and origins.text == "none":
        problems["message_vault_origins"] = (
            "MESSAGE_VAULT_ORIGINS: is none while VAULT_API_URL, VAULT_ACCESS_KEY and "
            "VAULT_SECRET_KEY are not set, so no recording could be fetched from anywhere; set "
            "those, or name the Vaults that messages may name"
        )
    if "vault_client_key" in found and "vault_client_cert" not in found:
        problems["vault_client_cert"] = "VAULT_CLIENT_CERT is not set though VAULT_CLIENT_KEY is"
    return problems
