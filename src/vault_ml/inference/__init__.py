"""Inference runtimes behind one port."""

from __future__ import annotations
