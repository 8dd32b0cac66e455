"""From measured recordings per second to replicas, processors, memory and partitions.

Plain arithmetic, each step of which is shown: a plan that cannot be followed is not trusted.

A measurement is a JSON object with these keys, of one worker on one machine:
`recordings_per_s`, `cpus` (processors it had) and `peak_memory_bytes` (of all its processes).
Other keys are passed over.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from vault_ml.errors import ConfigError

_MEMORY_STEP_BYTES = 64 * 1024**2
_MEMORY_RESERVE = 1.25
"""What a worker's memory may grow by beyond the measured peak: larger pictures, other codecs."""
_PARTITIONS_PER_REPLICA = 2
"""Partitions cannot be taken away, and adding some moves cameras to others: room to double."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one worker does.

    Attributes:
        recordings_per_s: with nothing to wait for.
        cpus: processors it had.
        peak_memory_bytes: of all its processes together.
    """

    recordings_per_s: float
    cpus: float
    peak_memory_bytes: float

    def __post_init__(self) -> None:
        """Raise `ConfigError` where a figure is none that was measured."""
        for name in ("recordings_per_s", "cpus", "peak_memory_bytes"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} must be a number above 0, not {value}")

    @classmethod
    def from_json(cls, text: str) -> Measured:
        """Read a measurement.

        Raises:
            ConfigError: a figure is missing or is no number.
        """
        try:
            found = json.loads(text)
            return cls(
                *(float(found[n]) for n in ("recordings_per_s", "cpus", "peak_memory_bytes"))
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                "this is no measurement: expected a JSON object with the numbers "
                "recordings_per_s, cpus and peak_memory_bytes"
            ) from error


@dataclass(frozen=True, slots=True)
class Plan:
    """What so many cameras need.

    Attributes:
        demand_per_s: recordings that arrive each second, in the busiest hour.
        capacity_per_s: recordings that one replica is planned to do.
        replicas: workers.
        cpu_request: processors of each.
        memory_request_bytes: of each.
        kafka_partitions: of the queue's topic, at least.
        arithmetic: how each was reckoned, a sentence a line.
    """

    demand_per_s: float
    capacity_per_s: float
    replicas: int
    cpu_request: float
    memory_request_bytes: int
    kafka_partitions: int
    arithmetic: tuple[str, ...]


def plan(
    measured: Measured,
    *,
    cameras: int,
    recordings_per_hour: float,
    head_room: float = 0.3,
) -> Plan:
    """Reckon it out.

    Args:
        measured: one worker.
        cameras: how many.
        recordings_per_hour: of one camera, in the busiest hour.
        head_room: part of each worker's capacity that stays free, for catching up after an
            outage; 0.3 makes up for an hour away in a little more than two.

    Raises:
        ConfigError: a number is out of its range.
    """
    if cameras < 1 or not 0 < recordings_per_hour < math.inf:
        raise ConfigError("there must be at least one camera, and recordings of it")
    if not 0 <= head_room < 1:
        raise ConfigError(f"the head-room must be from 0 to less than 1, not {head_room}")
    demand = cameras * recordings_per_hour / 3600
    capacity = measured.recordings_per_s * (1 - head_room)
    # A quotient that is whole but for the last bit needs no further worker.
    replicas = max(1, math.ceil(round(demand / capacity, 9)))
    wanted = measured.peak_memory_bytes * _MEMORY_RESERVE
    memory = math.ceil(wanted / _MEMORY_STEP_BYTES) * _MEMORY_STEP_BYTES
    partitions = replicas * _PARTITIONS_PER_REPLICA
    mib = 1024**2
    return Plan(
        demand,
        capacity,
        replicas,
        measured.cpus,
        memory,
        partitions,
        (
            (
                f"demand: {cameras} cameras x {recordings_per_hour:g} recordings an hour / 3600 = "
                f"{demand:.3f} recordings/s"
            ),
            (
                f"capacity: {measured.recordings_per_s:.3f} recordings/s measured x "
                f"(1 - {head_room:g} head-room) = {capacity:.3f} recordings/s for each replica"
            ),
            f"replicas: {demand:.3f} / {capacity:.3f}, rounded up = {replicas}",
            (
                f"processors: {measured.cpus:g} for each as measured, {replicas * measured.cpus:g} "
                "in all"
            ),
            (
                f"memory: {measured.peak_memory_bytes / mib:.0f} MiB peak x {_MEMORY_RESERVE:g}, "
                f"rounded up to 64 MiB = {memory // mib} MiB for each"
            ),
            (
                f"partitions: {replicas} replicas x {_PARTITIONS_PER_REPLICA}, so that they can "
                f"double = {partitions}"
            ),
        ),
    )
