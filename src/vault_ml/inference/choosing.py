"""RUNTIME=auto: measure the installed runtimes on the real model, take the fastest, remember it.

What is measured once holds for this model on this machine: processor, quota and versions are part
of what it is remembered under (docs/adr/0014-runtimes.md).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from vault_ml.child import Child, ChildGone, ChildStuck
from vault_ml.errors import ConfigError
from vault_ml.inference.cpu_quota import usable_cpus
from vault_ml.inference.opening import Engine, Opening, installed_engines, opening_to_json

_CHILD_MODULE = "vault_ml.inference.measuring_child"
_MEASURED_S = 1.0
# Loading and compiling a large model, and its first runs on half a processor.
_TIMEOUT_S = 180.0
# ONNX Runtime is what every machine has. Another one must be clearly faster: less is noise, and
# would let the choice differ between machines of one kind.
_CLEARLY = 1.1
_REFERENCE: Engine = "onnxruntime"
# With more programs than this waiting for each processor, what is measured says little.
_CROWDED = 4.0
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "MNN")


@dataclass(frozen=True, slots=True)
class Choice:
    """What runs a model, and why.

    Attributes:
        engine: the runtime.
        reason: a sentence for the log and for `vault-ml check`.
        rates: pictures per second of each that was measured.
        is_remembered: nothing was measured this time.
    """

    engine: Engine
    reason: str
    rates: Mapping[str, float]
    is_remembered: bool = False


def choose(
    model: Path, sha256: str, net_wh: tuple[int, int], how: Opening, cache_dir: Path
) -> Choice:
    """The fastest runtime for this model on this machine.

    Args:
        model: the ONNX file.
        sha256: digest of what determines the model's output.
        net_wh: size of its largest input, pixels.
        how: all but the engine.
        cache_dir: where the choice is remembered.

    Raises:
        ConfigError: no runtime is installed, or none runs this model.
    """
    engines = installed_engines()
    if how.precision == "int8":
        return Choice("openvino", "INT8 models run on OpenVINO", {})
    if not engines:
        raise ConfigError("no runtime is installed; run: pip install 'vault-ml[cpu]'")
    if len(engines) == 1:
        return Choice(engines[0], f"{engines[0]} is the only runtime that is installed", {})
    path = cache_dir / f"runtime-{_key(sha256, how)[:32]}.json"
    remembered = recall(path)
    if remembered is not None and remembered.engine in engines:
        return remembered
    was_crowded = _is_crowded()
    choice = fastest({engine: measure(model, net_wh, how, engine) for engine in engines})
    if was_crowded or _is_crowded():
        # Held for ever, a choice by chance would slow this machine down for ever.
        return replace(choice, reason=f"{choice.reason}; the machine was crowded, not remembered")
    _remember(path, choice)
    return choice


def _is_crowded() -> bool:
    return os.getloadavg()[0] > _CROWDED * (os.cpu_count() or 1)


def remembered_choice(sha256: str, how: Opening, cache_dir: Path) -> Choice | None:
    """What `choose` found for this model on this machine before; measures nothing."""
    found = recall(cache_dir / f"runtime-{_key(sha256, how)[:32]}.json")
    return found if found is not None and found.engine in installed_engines() else None


def measure(
    model: Path, net_wh: tuple[int, int], how: Opening, engine: Engine
) -> Mapping[str, Any]:
    """One runtime in a process of its own: `pictures_per_s`, `device`; or `refused`."""
    options = opening_to_json(replace(how, engine=engine))
    message = {
        "model": str(model),
        "net_wh": list(net_wh),
        "how": options,
        "seconds": _MEASURED_S,
    }
    with Child(_CHILD_MODULE, name=f"measuring {engine}") as child:
        try:
            child.channel.send(message, timeout_s=_TIMEOUT_S)
            answer, fds = child.channel.receive(timeout_s=_TIMEOUT_S)
        except (ChildGone, ChildStuck):
            return {"refused": "it died or stood still while it was measured"}
    for fd in fds:
        os.close(fd)
    return answer


def fastest(answers: Mapping[Engine, Mapping[str, Any]]) -> Choice:
    """What the measurements say."""
    rates: dict[str, float] = {
        engine: float(answer["pictures_per_s"])
        for engine, answer in answers.items()
        if "refused" not in answer
    }
    if not rates:
        reasons = "; ".join(f"{engine}: {each.get('refused')}" for engine, each in answers.items())
        raise ConfigError(f"no installed runtime runs this model: {reasons}")
    on_gpu: list[Engine] = [
        engine for engine in answers if engine in rates and answers[engine].get("device") != "cpu"
    ]
    if on_gpu:
        return Choice(on_gpu[0], f"it runs on {answers[on_gpu[0]]['device']}", rates)
    best = max((engine for engine in answers if engine in rates), key=lambda engine: rates[engine])
    if _REFERENCE in rates and rates[best] < rates[_REFERENCE] * _CLEARLY:
        best = _REFERENCE
    told = ", ".join(f"{engine} {rates[engine]:.3g}" for engine in sorted(rates))
    refused = ", ".join(engine for engine in answers if engine not in rates)
    reason = f"measured on this model, pictures/s: {told}"
    return Choice(best, reason + (f"; {refused} cannot run it" if refused else ""), rates)


def recall(path: Path) -> Choice | None:
    """A remembered choice; None where there is none, or the file is not one."""
    try:
        found = json.loads(path.read_text())
        engine, reason, rates = found["engine"], str(found["reason"]), dict(found["rates"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if engine not in ("onnxruntime", "openvino", "mnn"):
        return None
    return Choice(
        cast("Engine", engine), f"{reason} (remembered in {path.name})", rates, is_remembered=True
    )


def _remember(path: Path, choice: Choice) -> None:
    """Whole or not at all. Where it cannot be written, the next start measures again."""
    content = json.dumps(asdict(choice))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(content)
        Path(file.name).chmod(0o644)
        Path(file.name).replace(path)
    except OSError:
        return


def _key(sha256: str, how: Opening) -> str:
    machine = {
        "model": sha256,
        "precision": how.precision,
        "rect": how.rect,
        "threads": how.threads or usable_cpus(),
        "cpu": cpu_name(),
        "gpu": Path("/dev/nvidiactl").exists(),
        "versions": _versions(_PACKAGES),
    }
    return hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What the processor calls itself; '' where nothing says so."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else ""


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
