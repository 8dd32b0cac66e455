"""Alert rules and dashboard: accepted by Prometheus, and about metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import yaml

from vault_ml.demo.clips import sample_clips
from vault_ml.demo.show import stage
from vault_ml.telemetry.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy/helm/vault-ml/files/alerts.yaml"
DASHBOARD = ROOT / "deploy/helm/vault-ml/files/dashboard.json"
# Set by Prometheus itself on whatever it scrapes.
_OF_PROMETHEUS = {"job", "instance"}
_WITHIN_S = 90.0


def dashboard_queries() -> list[tuple[str, str]]:
    """Title of the panel and PromQL of each query of the dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [(panel["title"], each["expr"]) for panel in panels for each in panel["targets"]]


def alert_queries() -> list[tuple[str, str]]:
    """Name of the alert and PromQL of each rule."""
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return [(rule["alert"], rule["expr"]) for rule in group["rules"]]


def served() -> dict[str, set[str]]:
    """Name -> labels of every series that a worker serves."""
    metrics = Metrics()
    metrics.runs(version="1", model="m", runtime="r", device="d", precision="p")
    series: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            series.setdefault(sample.name, set()).update(sample.labels)
    return series


def values_of(metric: str, label: str) -> set[str | None]:
    """The values of a label that a worker serves from its start."""
    families = Metrics().registry.collect()
    samples = [each for family in families for each in family.samples if each.name == metric]
    return {sample.labels.get(label) for sample in samples}


@pytest.mark.parametrize(
    ("name", "query"),
    [*dashboard_queries(), *alert_queries()],
    ids=lambda value: value.split("(")[0][:40] if isinstance(value, str) else None,
)
def test_every_query_asks_for_metrics_and_labels_that_a_worker_serves(
    name: str, query: str
) -> None:
    known = served()
    for metric, selectors in re.findall(r"((?:vault_ml|process)_\w+)(\{[^}]*\})?", query):
        assert metric in known, f"{name}: {metric}"
        asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selectors))
        assert asked <= known[metric] | _OF_PROMETHEUS, f"{name}: {asked}"
        for label, value in re.findall(r'(\w+)="([^"$]*)"', selectors):
            assert value in values_of(metric, label), f"{name}: {value}"
    grouped = {
        label.strip()
        for words in re.findall(r"by \(([^)]*)\)", query)
        for label in words.split(",")
    }
    everything = set().union(*known.values()) | _OF_PROMETHEUS
    assert grouped <= everything, f"{name}: {grouped - everything}"


def test_every_metric_of_ours_is_shown_on_the_dashboard() -> None:
    shown = " ".join(query for _, query in dashboard_queries())
    families = [f.name for f in Metrics().registry.collect() if f.name.startswith("vault_ml_")]
    assert [name for name in families if name not in shown] == []


def test_panels_do_not_overlap_and_have_titles_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    for values in ([p["title"] for p in panels], [p["id"] for p in panels]):
        assert len(set(values)) == len(panels)


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not here (Debian's package prometheus)")
    return path


def test_promtool_accepts_the_rules_and_they_fire_when_they_should() -> None:
    promtool = tool("promtool")
    for words in (
        ["check", "rules", str(ALERTS)],
        ["test", "rules", str(ROOT / "deploy/monitoring/alerts_test.yaml")],
    ):
        ended = subprocess.run([promtool, *words], capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_promtool_accepts_what_prometheus_is_configured_with(tmp_path: Path) -> None:
    promtool = tool("promtool")
    shutil.copy(ROOT / "deploy/monitoring/prometheus.yaml", tmp_path)
    shutil.copy(ALERTS, tmp_path / "alerts.yaml")  # as docker-compose.yaml mounts it
    ended = subprocess.run(
        [promtool, "check", "config", str(tmp_path / "prometheus.yaml")],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """The address of a real Prometheus that scrapes `target` every second."""
    config = folder / "prometheus.yaml"
    scrape = {"job_name": "vault-ml", "static_configs": [{"targets": [target]}]}
    config.write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(ALERTS)],
                "scrape_configs": [scrape],
            }
        )
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    process = subprocess.Popen(
        [
            tool("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=error",
        ]
    )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(60)


def answer(address: str, query: str) -> list[dict[str, Any]]:
    """What Prometheus answers; [] while it is not up or has no data."""
    for variable, value in (("$__rate_interval", "30s"), ("$job", ".*"), ("$instance", ".*")):
        query = query.replace(variable, value)
    try:
        reply = httpx.get(f"{address}/api/v1/query", params={"query": query}, timeout=10)
    except httpx.TransportError:
        return []
    assert reply.status_code in {200, 503}, reply.text
    if reply.status_code != 200:
        return []
    return [
        each for each in reply.json()["data"]["result"] if each["value"][1] not in {"NaN", "+Inf"}
    ]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_panel_has_data_in_a_real_prometheus_that_scrapes_a_working_worker(
    tmp_path: Path,
) -> None:
    tool("prometheus")
    with stage(model="yolov3-tiny", pictures=None, log=structlog.get_logger()) as show:
        target = show.worker.web_url.removeprefix("http://")
        with prometheus(tmp_path, target) as address:
            deadline = time.monotonic() + _WITHIN_S
            while not answer(address, "vault_ml_info") and time.monotonic() < deadline:
                time.sleep(0.2)
            clips = sample_clips(None)
            for clip in clips * 2:
                show.upload(clip)
            waiting = dict(dashboard_queries())
            empty = list(dashboard_queries())
            while empty and time.monotonic() < deadline:
                empty = [(title, query) for title, query in empty if not answer(address, query)]
                time.sleep(0.5)
                if show.next_result(0.5) is not None:
                    show.upload(clips[0])
            assert waiting
            assert empty == []
            rules = httpx.get(f"{address}/api/v1/rules", timeout=10).json()["data"]["groups"]
            states = {rule["name"]: rule["health"] for group in rules for rule in group["rules"]}
            assert set(states.values()) == {"ok"}
            assert len(states) == len(alert_queries())
