"""Which runs are finished, remembered beside the broker; switched on by `OUTCOMES`."""

from __future__ import annotations
