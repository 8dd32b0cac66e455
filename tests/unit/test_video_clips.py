"""The clips of the tests are made without a trace."""

from __future__ import annotations

import os

from video_clips import RECIPES, encode


def test_making_a_clip_leaves_our_priority_as_it_was() -> None:
    """An encoder may make us a real-time process; all that tests start would inherit it."""
    before = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    for recipe in RECIPES.values():
        if recipe.get("codec") == "libsvtav1":
            encode(**recipe)
    assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == before
