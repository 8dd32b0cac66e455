"""Known models, where they come from, and a model made ready to run."""

from __future__ import annotations
