"""What stood at each camera in earlier recordings; switched on by `STATIC_MEMORY`."""

from __future__ import annotations
