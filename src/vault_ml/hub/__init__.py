"""What Kerberos Hub reads: the result of `classify`, and the typed block of detections. Pure."""

from __future__ import annotations
