"""From measured figures to replicas: the arithmetic, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vault_ml.cli import main
from vault_ml.errors import ConfigError
from vault_ml.sizing import Measured, plan

MIB = 1024**2
ONE = Measured(2.0, 2, 900 * MIB)


def test_replicas_carry_the_demand_with_head_room() -> None:
    found = plan(ONE, cameras=200, recordings_per_hour=120)
    assert found.demand_per_s == pytest.approx(6.667, abs=1e-3)
    assert found.capacity_per_s == pytest.approx(1.4)
    assert (found.replicas, found.kafka_partitions) == (5, 10)
    assert (found.cpu_request, found.memory_request_bytes) == (2, 1152 * MIB)
    assert found.replicas * found.capacity_per_s >= found.demand_per_s
    assert "200 cameras x 120 recordings an hour / 3600 = 6.667" in found.arithmetic[0]


def test_little_demand_is_one_worker() -> None:
    assert plan(ONE, cameras=1, recordings_per_hour=1).replicas == 1


def test_what_fits_exactly_needs_no_further_worker() -> None:
    assert plan(ONE, cameras=63, recordings_per_hour=240, head_room=0.3).replicas == 3


@pytest.mark.parametrize(
    ("cameras", "hourly", "head_room"), [(0, 1, 0.3), (1, 0, 0.3), (1, 1, 1.0), (1, 1, -0.1)]
)
def test_numbers_out_of_range_are_refused(cameras: int, hourly: float, head_room: float) -> None:
    with pytest.raises(ConfigError):
        plan(ONE, cameras=cameras, recordings_per_hour=hourly, head_room=head_room)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"recordings_per_s": "x"}'])
def test_other_json_is_no_measurement(text: str) -> None:
    with pytest.raises(ConfigError, match="this is no measurement"):
        Measured.from_json(text)


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_a_figure_that_nobody_measured_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="recordings_per_s must be a number above 0"):
        Measured(value, 1, 1)


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["plan", *words])
    return int(ended.value.code or 0)


def test_the_command_reads_a_measurement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.json"
    figures = {"recordings_per_s": 2.0, "cpus": 2, "peak_memory_bytes": 900 * MIB, "model": "m"}
    file.write_text(json.dumps(figures))
    assert run("--cameras", "200", "--clip", "30s", "--bench", str(file), "--json") == 0
    assert json.loads(capsys.readouterr().out)["replicas"] == 5
    assert run("--cameras", "200", "--recordings-per-s", "2", "--recordings-per-hour", "12") == 0
    assert "replicas: 0.667 / 1.400, rounded up = 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--cameras", "2"], id="no-figures"),
        pytest.param(["--cameras", "2", "--bench", "gone.json"], id="no-file"),
        pytest.param(["--cameras", "2", "--recordings-per-s", "1", "--clip", "long"], id="clip"),
    ],
)
def test_the_command_says_what_is_missing(words: list[str]) -> None:
    assert run(*words) == 2
