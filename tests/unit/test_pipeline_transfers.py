from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from vault_ml.backoff import Backoff
from vault_ml.brokers.port import Message
from vault_ml.errors import RecordingIncomplete, RecordingNotFound, RetryableError
from vault_ml.event import parse
from vault_ml.outage import Outages
from vault_ml.pipeline import Pipeline, PipelineOptions, Progress
from vault_ml.telemetry.log import Log

BODY = b'{"source": "local", "payload": {"key": "u/a.mp4"}}'
BROKEN_OFF = RecordingIncomplete("the body ended too early", is_broken_off=True)


class SilentLog:
    """Says nothing."""

    def info(self, _event: str, **_: object) -> None: ...

    warning = info


class ScriptedVault:
    """Answers each fetch with the next trouble of its script, which is also its lease."""

    is_own = True
    provider = "local"

    def __init__(self, *script: RetryableError) -> None:
        self.script = list(script)

    @property
    def vault(self) -> ScriptedVault:
        return self

    def ping(self) -> None:
        """It is well."""

    @contextmanager
    def lease(self, _storage: object) -> Iterator[ScriptedVault]:
        yield self

    def run(self, step: Callable[[ScriptedVault], object]) -> object:
        return step(self)

    def fetch(self, *_: object, **__: object) -> None:
        raise self.script.pop(0)


def process(vault: ScriptedVault) -> None:
    """Look at a recording of this Vault; nothing of it ever comes far enough to be decoded."""
    outages = Outages(
        backoff=Backoff(0.01, 0.01),
        stop=threading.Event(),
        on_pause=lambda: None,
        on_resume=lambda: None,
        log=cast("Log", SilentLog()),
    )
    nothing: Any = None
    options = PipelineOptions(1, nothing, 0.5, 0.45, nothing, nothing, nothing)
    pipeline = Pipeline(
        cast("Any", vault), nothing, nothing, nothing, outages, options, metrics=nothing
    )
    pipeline.process(parse(BODY), Message(BODY, None, {}), Progress())


def test_a_transfer_that_broke_off_is_begun_again_and_costs_no_try() -> None:
    vault = ScriptedVault(BROKEN_OFF, BROKEN_OFF, RecordingNotFound("in the end it is not there"))
    with pytest.raises(RecordingNotFound):
        process(vault)
    assert vault.script == []


def test_a_transfer_that_breaks_off_again_and_again_costs_one() -> None:
    vault = ScriptedVault(*[BROKEN_OFF] * 4)
    with pytest.raises(RecordingIncomplete):
        process(vault)
    assert len(vault.script) == 1


def test_a_recording_that_is_itself_incomplete_is_not_asked_for_again_at_once() -> None:
    vault = ScriptedVault(RecordingIncomplete("empty so far"), BROKEN_OFF)
    with pytest.raises(RecordingIncomplete, match="empty so far"):
        process(vault)
    assert vault.script == [BROKEN_OFF]
