"""Darknet: its files, its heads, its non-maximum suppression."""

from __future__ import annotations
