"""SQLite files and Redis servers, as memories use them: where they are, how they are opened."""

from __future__ import annotations
