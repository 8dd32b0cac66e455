"""Detections of one frame after another -> objects over time. Pure."""

from __future__ import annotations
