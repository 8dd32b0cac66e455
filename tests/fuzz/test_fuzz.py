"""Damaged recordings end with frames or with a reason, and with nothing else."""

from __future__ import annotations

import random

import pytest

from fuzz.campaign import campaign
from fuzz.mutations import mutated


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_damaged_recordings_harm_nobody() -> None:
    outcomes = campaign(1000, seed=20)
    assert outcomes.total() == 1000
    # They reach the decoders as well as the gates before them.
    assert outcomes["looked at"] + outcomes["partial"] > 100
    assert outcomes["UndecodableRecording"] > 100


def test_damage_is_the_same_for_the_same_seed() -> None:
    data = bytes(range(256)) * 20
    ones = [mutated(data, random.Random(seed)) for seed in range(50)]
    assert ones == [mutated(data, random.Random(seed)) for seed in range(50)]
    assert sum(one != data for one in ones) > 40


def test_nothing_can_be_damaged_too() -> None:
    assert mutated(b"", random.Random(1)) == b""
