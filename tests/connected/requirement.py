"""What happens where a broker cannot be started."""

from __future__ import annotations

import os

import pytest


def skip_or_fail(broker: str, reason: str) -> None:
    """Skip, unless `REQUIRE_BROKERS` names this broker."""
    if broker in os.environ.get("REQUIRE_BROKERS", "").split(","):
        pytest.fail(f"{reason}, and REQUIRE_BROKERS names {broker}")
    pytest.skip(reason)
