"""What the composition root tells of decoders: what holds them, and why they were replaced."""

from __future__ import annotations

import json

import pytest

from vault_ml import app
from vault_ml.telemetry.logs import configure
from vault_ml.telemetry.metrics import Metrics
from vault_ml.video.decoder_pool import DecoderPool
from vault_ml.video.jail import Jail


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    return [json.loads(line) for line in (captured.err + captured.out).splitlines() if line]


def test_a_decoder_that_was_replaced_is_counted_and_told_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    metrics = Metrics()
    app._decoder_lost("the decoder was killed by SIGSEGV", configure("json", "INFO"), metrics)
    assert metrics.registry.get_sample_value("vault_ml_decoder_restarts_total") == 1
    (line,) = lines(capsys)
    assert line["event"] == "decoder_restarted"
    assert line["reason"] == "the decoder was killed by SIGSEGV"


@pytest.mark.parametrize(("seccomp", "level"), [(True, "info"), (False, "warning")])
def test_what_holds_the_decoders_is_told_once_and_a_hole_is_a_warning(
    capsys: pytest.CaptureFixture[str], seccomp: bool, level: str
) -> None:
    pool = DecoderPool(1)
    log = configure("json", "INFO")
    app._tell_of_jail(pool, log)  # not started: nothing to tell
    assert lines(capsys) == []
    pool.jail = Jail(seccomp=seccomp, landlock=0)
    app._tell_of_jail(pool, log)
    (line,) = lines(capsys)
    assert line["event"] == "decoder_confined"
    assert str(line["level"]).lower() == level
    assert line["seccomp"] is seccomp
