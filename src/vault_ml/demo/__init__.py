"""The demo: an embedded Vault, an embedded broker, real clips."""

from __future__ import annotations
