"""What of all that was seen is of interest: classes, confidences, places, sizes. Pure."""

from __future__ import annotations
