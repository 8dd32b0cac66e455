"""The broker's patience against ours, held against each other before the first event is taken.

RabbitMQ takes an event back that is not acknowledged within its `consumer_timeout` (30 minutes by
default), and nothing extends that. Quorum queues give up on a message after so many deliveries (20
by default since RabbitMQ 4), and drop it when they have no dead-letter exchange.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from vault_ml.brokers.rabbitmq.options import RabbitOptions
from vault_ml.errors import BrokerUnavailable, ConfigError, CredentialsRejected
from vault_ml.telemetry.log import Log

# We use this much of the broker's patience: it looks once a minute, and clocks are not alike.
USABLE = 0.8
# Beside the work, an event must be able to wait here a little: for a thread, for its next try.
_SHORTEST_HOLD_S = 2.0
_REQUEST_S = 10.0
_LIMIT_SINCE_VERSION = 4
_DEFAULT_LIMIT = 20


@dataclass(frozen=True, slots=True)
class Limits:
    """How long, and how often.

    Attributes:
        ack_timeout_s: an event not acknowledged for so long is taken back; inf when never.
        delivery_limit: deliveries of one event before the queue gives up on it; None when
            unknown, inf when there is no end.
        work_s: the longest that the work on one event takes, outages aside.
    """

    ack_timeout_s: float = 1800.0
    delivery_limit: float | None = None
    work_s: float = 600.0

    @property
    def work_until_s(self) -> float:
        """Age of a lease after which also what is being worked on is given back for a new one."""
        return self.ack_timeout_s * USABLE

    @property
    def hold_until_s(self) -> float:
        """Age of a lease after which it is too old to begin work under it."""
        return max(self.work_until_s - self.work_s, self.ack_timeout_s / 4)


def check_limits(options: RabbitOptions, queue: str, work_s: float, *, log: Log) -> Limits:
    """The limits of `queue`, if the work fits into them.

    They come from the management API where `options` names one, else from the options.

    Args:
        options: how to reach the broker.
        queue: the queue of events; it need not exist yet.
        work_s: the longest that the work on one event takes, outages aside.
        log: told what could not be found out.

    Raises:
        ConfigError: the work does not fit, or events would be dropped, or the management API
            refuses us. The sentence says what to change.
    """
    seen: _Seen | None = None
    if options.management_url:
        try:
            seen = _ask(options, queue)
        except BrokerUnavailable as error:
            log.warning("limits_unchecked", reason=str(error))
    timeout_s = options.ack_timeout_s or math.inf
    if seen is not None and seen.ack_timeout_s is not None:
        timeout_s = seen.ack_timeout_s
    limits = Limits(timeout_s, _delivery_limit(options, seen), work_s)
    _check_time(limits, queue)
    if seen is not None:
        _check_dead_lettering(seen, limits, queue)
    return limits


def default_delivery_limit(version: str) -> float:
    """What a broker of this version does where nobody says otherwise.

    >>> default_delivery_limit("4.1.2"), default_delivery_limit("3.13.7")
    (20.0, inf)
    """
    major = version.partition(".")[0]
    is_limited = major.isdigit() and int(major) >= _LIMIT_SINCE_VERSION
    return float(_DEFAULT_LIMIT) if is_limited else math.inf


def _check_time(limits: Limits, queue: str) -> None:
    if limits.work_until_s - limits.work_s >= _SHORTEST_HOLD_S:
        return
    longest_s = limits.work_until_s - _SHORTEST_HOLD_S
    needed_s = math.ceil((limits.work_s + _SHORTEST_HOLD_S) / USABLE)
    raise ConfigError(
        f"RabbitMQ takes an event of {queue!r} back when it is not acknowledged within "
        f"{limits.ack_timeout_s:g} s, and nothing extends that; the work on one recording may take "
        f"{limits.work_s:g} s here, and at most {max(0.0, longest_s):g} s are safe. Set the "
        f"broker's consumer_timeout to {needed_s} s or more (and RABBITMQ_ACK_TIMEOUT_S with it), "
        "or lower RECORDING_TIMEOUT_S, DECODE_TIMEOUT_S and DETECTOR_TIMEOUT_S."
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the management API told."""

    version: str
    exists: bool
    kind: str
    delivery_limit: float | None
    has_dead_lettering: bool
    ack_timeout_s: float | None


def _delivery_limit(options: RabbitOptions, seen: _Seen | None) -> float | None:
    if seen is not None and seen.exists:
        if seen.kind != "quorum":
            return math.inf
        if seen.delivery_limit is not None:
            return seen.delivery_limit if seen.delivery_limit > 0 else math.inf
    if options.delivery_limit is not None:
        return float(options.delivery_limit or math.inf)
    return None if seen is None else default_delivery_limit(seen.version)


def _check_dead_lettering(seen: _Seen, limits: Limits, queue: str) -> None:
    limit = limits.delivery_limit
    if not seen.exists or limit is None or math.isinf(limit) or seen.has_dead_lettering:
        return
    raise ConfigError(
        f"The queue {queue!r} gives up on an event after {limit:g} deliveries and has no "
        "dead-letter exchange, so the event would be dropped. Give it one by a policy: rabbitmqctl "
        f'set_policy vault-ml \'^{queue}$\' \'{{"dead-letter-exchange":"",'
        f'"dead-letter-routing-key":"{queue}.dlq"}}\' --apply-to queues.'
    )


def _ask(options: RabbitOptions, queue: str) -> _Seen:
    base = options.management_url.rstrip("/")
    path = f"/api/queues/{quote(options.virtual_host, safe='')}/{quote(queue, safe='')}"
    verify: Any = True
    if options.ca_file:
        import ssl

        verify = ssl.create_default_context(cafile=options.ca_file)
    with httpx.Client(
        auth=(options.username, options.password),
        timeout=_REQUEST_S,
        verify=verify,
        trust_env=False,
    ) as client:
        overview = _get(client, base + "/api/overview", options)
        found = _get(client, base + path, options)
    arguments = {**(found or {}).get("arguments", {})}
    policy = {**((found or {}).get("effective_policy_definition") or {})}

    def said(name: str) -> Any:
        return arguments.get(f"x-{name}", policy.get(name))

    timeout_ms = said("consumer-timeout")
    limit = said("delivery-limit")
    if limit is None:
        limit = (found or {}).get("delivery_limit")
    return _Seen(
        version=str((overview or {}).get("rabbitmq_version", "")),
        exists=found is not None,
        kind=str((found or {}).get("type", "")),
        delivery_limit=float(limit) if isinstance(limit, int | float) else None,
        has_dead_lettering=said("dead-letter-exchange") is not None,
        ack_timeout_s=timeout_ms / 1000 if isinstance(timeout_ms, int | float) else None,
    )


def _get(client: httpx.Client, url: str, options: RabbitOptions) -> dict[str, Any] | None:
    where = f"RabbitMQ's management API at {options.management_url}"
    try:
        answer = client.get(url)
    except httpx.HTTPError as error:
        raise BrokerUnavailable(
            f"{where} does not answer; check RABBITMQ_MANAGEMENT_URL. Its limits are taken from "
            "the settings."
        ) from error
    if answer.status_code == httpx.codes.NOT_FOUND:
        return None
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise CredentialsRejected(
            f"{where} refused {options.username!r}; give the user the tag `monitoring`, or unset "
            "RABBITMQ_MANAGEMENT_URL."
        )
    try:
        document = answer.json() if answer.is_success else None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise BrokerUnavailable(
            f"{where} gave no answer of RabbitMQ's ({answer.status_code}); check "
            "RABBITMQ_MANAGEMENT_URL. Its limits are taken from the settings."
        )
    return document
