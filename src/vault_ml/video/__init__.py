"""From a recording to frames, in processes that may die."""

from __future__ import annotations
