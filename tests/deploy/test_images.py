"""The Dockerfiles: what can be said of them without building one (docker/try.sh builds)."""

from __future__ import annotations

import difflib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from development_tool import tool

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "docker/Dockerfile", ROOT / "docker/Dockerfile-gpu"]
SCRIPTS = [
    *("run-cpu.sh", "run-gpu.sh", "docker/build-and-run.sh", "docker/try.sh", "docker/slim.sh"),
    "docker/link-cuda.sh",
]


def instructions(file: Path) -> list[str]:
    """A Dockerfile's instructions, continued lines joined, comments left out."""
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [line for line in joined.splitlines() if line.strip()]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_hadolint_has_nothing_to_say(file: Path) -> None:
    ended = subprocess.run([tool("hadolint"), str(file)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_image_runs_as_a_user_by_number_who_is_not_root(file: Path) -> None:
    final = instructions(file)[
        max(n for n, line in enumerate(instructions(file)) if line.startswith("FROM")) :
    ]
    users = [line.split()[1] for line in final if line.startswith("USER")]
    # By number: Kubernetes' runAsNonRoot cannot judge a name.
    assert users == ["65532:65532"]
    assert not any(line.startswith("RUN") for line in final), "nothing runs in the last stage"
    assert any(line.startswith("HEALTHCHECK") for line in final)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_package_is_locked_by_hash_and_nothing_is_fetched_otherwise(file: Path) -> None:
    text = "\n".join(instructions(file))
    installs = re.findall(r"pip (?:--python \S+ )?install ([^&;]*)", text)
    assert len(installs) == 4
    for words in installs:
        assert "--require-hashes" in words or "/tmp/wheel/" in words, words
    assert "curl" not in text
    assert "wget" not in text
    assert not any(line.startswith("ADD") for line in instructions(file))
    compilers = re.findall(r"\b(gcc|g\+\+|build-essential|python3-dev|nvcc)\b", text)
    assert compilers == []


def test_the_two_files_differ_where_the_gpu_needs_it_only() -> None:
    cpu, gpu = (instructions(file) for file in FILES)
    changes = [
        line
        for line in difflib.ndiff(cpu, gpu)
        if line.startswith(("+ ", "- ")) and not line.startswith("? ")
    ]
    allowed = ("run-gpu.txt", "run.txt", "link-cuda.sh", "slim.sh", "LD_LIBRARY_PATH", "ENV PATH")
    unexpected = [
        line
        for line in changes
        if not any(word in line for word in allowed) and "LABEL" not in line
    ]
    assert unexpected == []


def test_the_build_sees_the_sources_and_nothing_else_of_the_folder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    named = set(re.findall(r"^COPY (?!--from)(.*) \S+$", FILES[1].read_text(), re.MULTILINE))
    for source in {word for words in named for word in words.split()}:
        assert any(f"!{source.split('/')[0]}" == rule for rule in rules), source


def test_the_gpu_image_installs_what_is_tested_on_a_cpu_but_for_the_runtime() -> None:
    def pinned(name: str) -> set[str]:
        lines = (ROOT / "requirements" / name).read_text().splitlines()
        return {line.split()[0] for line in lines if "==" in line and not line.startswith("#")}

    differing = pinned("run.txt") ^ pinned("run-gpu.txt")
    names = {each.split("==")[0] for each in differing}
    runtimes = {"onnxruntime", "onnxruntime-gpu", "openvino", "openvino-telemetry", "mnn"}
    assert names - runtimes <= {name for name in names if name.startswith("nvidia-")}


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_whole_and_may_be_run(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.parametrize(
    ("script", "missing"),
    [("run-cpu.sh", "Install Docker"), ("run-gpu.sh", "Install Docker")],
)
def test_the_front_doors_say_what_is_missing(tmp_path: Path, script: str, missing: str) -> None:
    ended = subprocess.run(
        ["bash", str(ROOT / script)],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "DOCKER": "no-docker-of-that-name"},
        cwd=tmp_path,
    )
    assert ended.returncode == 2
    assert missing in ended.stderr


def test_the_gpu_door_asks_for_driver_and_toolkit(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nexit 0\n")
    docker.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    if shutil.which("nvidia-smi", path=environment["PATH"]):
        pytest.skip("this machine has a driver")
    run = ["bash", str(ROOT / "run-gpu.sh")]
    ended = subprocess.run(run, capture_output=True, text=True, env=environment)
    assert ended.returncode == 2
    assert "driver" in ended.stderr
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nexit 0\n")
    smi.chmod(0o755)
    ended = subprocess.run(run, capture_output=True, text=True, env=environment)
    assert ended.returncode == 2
    assert "Container Toolkit" in ended.stderr


def test_the_container_is_run_without_rights_it_does_not_need(tmp_path: Path) -> None:
    """A stand-in for Docker writes down how it was called."""
    said = tmp_path / "said"
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >> {said}\n')
    docker.chmod(0o755)
    subprocess.run(
        ["bash", str(ROOT / "run-cpu.sh"), "demo", "--once"],
        check=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "KAFKA_PASSWORD": "hidden!1", "MODELS": ""},
    )
    info, build, run = said.read_text().splitlines()
    assert info == "info"
    assert "--build-arg MODELS= " in build
    for words in ("--read-only", "--cap-drop ALL", "no-new-privileges", "--env KAFKA_PASSWORD"):
        assert words in run
    assert "hidden!1" not in run
    assert run.endswith("vault-ml demo --once")


def test_the_inventory_names_ffmpeg_inside_the_wheels(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text(
        "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n"
    )
    subprocess.run(
        [
            *(sys.executable, str(ROOT / "docker/inventory.py"), str(tmp_path)),
            *("--debian", str(status)),
        ],
        check=True,
    )
    sbom = json.loads((tmp_path / "sbom.cdx.json").read_text())
    components = {each["name"]: each for each in sbom["components"]}
    inside = {each["name"]: each for each in components["av"]["components"]}
    assert re.fullmatch(r"[\d.]+", inside["ffmpeg"]["version"])
    assert inside["libavcodec"]["version"].count(".") == 2
    assert "libavcodec" in {
        each["name"] for each in components["opencv-python-headless"]["components"]
    }
    assert components["libc6"]["purl"] == "pkg:deb/debian/libc6@2.36-9?arch=amd64"
    assert "gone" not in components
    assert f"numpy {components['numpy']['version']}: " in (tmp_path / "licences.txt").read_text()


def test_the_compose_file_gives_no_rights_away() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert not service.get("privileged"), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        if name != "kafka":
            assert service["read_only"], name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists(), source
            assert volume.endswith(":ro"), volume
