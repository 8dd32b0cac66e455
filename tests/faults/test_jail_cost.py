"""The jail costs a recording less than anybody notices."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import video_clips as clips
from jail_cost import measure
from vault_ml.video.decoder_pool import DecoderPool

MOST_MS = 15.0


def small() -> bytes:
    return clips.encode("mp4", frames=60, size_wh=(768, 576), gop=12)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("recording", [small, clips.camera_recording], ids=["6 s", "20 s of 1080p"])
def test_a_recording_costs_hardly_more_in_the_jail(recording: Callable[[], bytes]) -> None:
    with DecoderPool(1) as pool:
        if pool.jail is None or not pool.jail.is_tight:
            pytest.skip("this kernel or container gives no filter on system calls")
    costs = []
    for _ in range(3):  # a neighbour that empties the caches costs more than the jail
        costs.append(measure(recording(), rounds=12))
        if costs[-1].added_ms <= MOST_MS:
            break
    print(costs)
    assert costs[-1].added_ms <= MOST_MS
