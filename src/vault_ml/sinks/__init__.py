"""Where a result goes: publish, forward, remove."""

from __future__ import annotations
