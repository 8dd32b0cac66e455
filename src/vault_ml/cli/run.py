"""`vault-ml run`: the worker."""

from __future__ import annotations


def run() -> None:
    """Work: receive events, look at their recordings, publish what was seen.

    Everything is set by environment variables; `vault-ml config` prints what is in force, and
    `vault-ml check` tries it out.
    """
    import os

    from vault_ml.app import work

    work(os.environ)
