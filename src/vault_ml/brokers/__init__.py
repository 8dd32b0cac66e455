"""Brokers: one port, one adapter per system."""

from __future__ import annotations
