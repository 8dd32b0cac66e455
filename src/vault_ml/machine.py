"""What a worker needs of the machine or the container it is in, and what it finds there.

Each function looks at one thing and says it in a sentence. What may be a container's limit is
taken from its control group, not from the machine.

Source: Linux `Documentation/admin-guide/cgroup-v2.rst` (memory.max, memory.current, pids.max,
cpu.stat) and its v1 counterparts.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from vault_ml.control_groups import control_groups, memory_limit
from vault_ml.inference.cpu_quota import usable_cpus

_MIB = 1024**2
_GIB = 1024**3
# What one worker and its children hold beside recordings, frames and the model: measured on the
# demo, rounded up.
_WORKER_BYTES = 600 * _MIB
_DECODER_BYTES = 200 * _MIB
# A converted YOLOv3 has 237 MiB, and is written beside its predecessor.
_CACHE_BYTES = 600 * _MIB
# Sockets, pipes, frames and recordings of sixteen recordings in flight, three times.
_DESCRIPTORS = 1024
_THREADS = 200
# Signed addresses live for minutes, and SQS refuses requests that are 15 minutes off.
_CLOCK_DOUBTFUL_S = 10.0
_CLOCK_WRONG_S = 60.0
_THROTTLED_SHARE = 0.1


class Level(StrEnum):
    """How a finding is to be taken."""

    OK = "ok"
    DOUBTFUL = "doubtful"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found.

    Attributes:
        level: whether it must, or might better, be changed.
        sentence: what is so.
        advice: what to do about it; empty where nothing is to be done.
    """

    level: Level
    sentence: str
    advice: str = ""


def processors(root: Path = Path("/")) -> Finding:
    """Processors that may be used, and whether the quota holds the work up."""
    usable, there = usable_cpus(root), os.cpu_count() or 1
    sentence = f"{usable} of {there} processors may be used"
    for group in control_groups("cpu", root):
        stat = group.read("cpu.stat")
        periods, throttled = _number(stat, "nr_periods"), _number(stat, "nr_throttled")
        if periods and throttled and throttled / periods > _THROTTLED_SHARE:
            return Finding(
                Level.DOUBTFUL,
                f"{sentence}; the quota of {group.name} stopped work in "
                f"{throttled / periods:.0%} of its periods",
                "Raise the CPU limit, or lower WORKER_CONCURRENCY; work that is stopped is slow "
                "and its leases run out.",
            )
    load = os.getloadavg()[1]
    if load > 2 * there:
        return Finding(
            Level.DOUBTFUL,
            f"{sentence}, and {load:.0f} programs want them",
            "Something else runs here; give the worker a machine, or a CPU request, of its own.",
        )
    return Finding(Level.OK, sentence)


def memory(
    *, in_flight: int, decoders: int, network_bytes: int, typical_bytes: int, root: Path = Path("/")
) -> Finding:
    """Whether the memory is enough.

    Args:
        in_flight: recordings at once.
        decoders: decoder processes.
        network_bytes: what the network takes.
        typical_bytes: size of a recording.
        root: where `proc` and `sys/fs/cgroup` are.
    """
    limit, whose = memory_limit(root)
    need = _WORKER_BYTES + decoders * _DECODER_BYTES + network_bytes + 2 * in_flight * typical_bytes
    sentence = (
        f"{_size(limit)} ({whose}); {in_flight} recordings in flight and {decoders} decoders want "
        f"about {_size(need)}"
    )
    if limit < need:
        return Finding(
            Level.WRONG,
            sentence,
            f"Raise the memory limit to {_size(need)}, or lower WORKER_CONCURRENCY: a worker that "
            "is out of memory is killed, and its recordings begin again.",
        )
    return Finding(Level.OK, sentence)


def cache(folder: Path) -> Finding:
    """Whether converted models can be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(
            Level.WRONG,
            f"{folder} cannot be written: {(error.strerror or 'the system refuses').lower()}",
            "Set CACHE_DIR to a folder that can (a tmpfs will do), or mend its owner.",
        )
    sentence = f"{_size(free)} free at {folder}"
    if free < _CACHE_BYTES:
        return Finding(
            Level.DOUBTFUL,
            sentence,
            f"A converted model needs up to {_size(_CACHE_BYTES)}; make room, or set CACHE_DIR.",
        )
    return Finding(Level.OK, sentence)


def limits(root: Path = Path("/")) -> Finding:
    """Open files and threads."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    pids_limits = (group.read("pids.max").strip() for group in control_groups("pids", root))
    pids = min((int(text) for text in pids_limits if text.isdigit()), default=None)
    sentence = f"{files} open files, {'unlimited' if pids is None else pids} processes and threads"
    if soft != resource.RLIM_INFINITY and soft < _DESCRIPTORS:
        wide = hard == resource.RLIM_INFINITY or hard >= _DESCRIPTORS
        how = f"ulimit -n {_DESCRIPTORS}" if wide else "raise the hard limit of open files"
        return Finding(Level.DOUBTFUL, sentence, f"{_DESCRIPTORS} open files are enough: {how}.")
    if pids is not None and pids < _THREADS:
        return Finding(
            Level.DOUBTFUL, sentence, f"Raise the limit of processes to {_THREADS} or more."
        )
    return Finding(Level.OK, sentence)


def gpu(device: str, devices: Sequence[Path] | None = None) -> Finding:
    """Whether a GPU that is here is used.

    Args:
        device: what the detector runs on.
        devices: the machine's device files; its own by default.
    """
    if devices is None:
        devices = sorted(Path("/dev").glob("nvidia[0-9]*"))
    if not devices:
        return Finding(Level.OK, f"no NVIDIA GPU is here; the detector runs on {device}")
    names = ", ".join(each.name for each in devices)
    if "cpu" in device.lower():
        return Finding(
            Level.DOUBTFUL,
            f"{names} is here, and the detector runs on {device}",
            "pip install 'vault-ml[gpu]' instead of 'vault-ml[cpu]', or use the GPU image.",
        )
    return Finding(Level.OK, f"the detector runs on {device} ({names})")


def clock(ahead_s: float | None) -> Finding:
    """Whether our clock and the Vault's agree.

    Args:
        ahead_s: how far ours is ahead, seconds; None where the Vault does not tell.
    """
    if ahead_s is None:
        return Finding(Level.OK, "the Vault does not tell its time")
    way = "ahead of" if ahead_s > 0 else "behind"
    sentence = f"our clock is {abs(ahead_s):.0f} s {way} the Vault's"
    if abs(ahead_s) < _CLOCK_DOUBTFUL_S:
        return Finding(Level.OK, sentence)
    return Finding(
        Level.WRONG if abs(ahead_s) >= _CLOCK_WRONG_S else Level.DOUBTFUL,
        sentence,
        "Set both by NTP (chronyc tracking shows where this one is): signed addresses end too "
        "early or too late, and ages and lags are wrong.",
    )


def _number(text: str, name: str) -> int | None:
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return None


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / _MIB:.0f} MiB"
