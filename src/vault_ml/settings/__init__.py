"""The environment, typed and checked once, at start.

`fields.Settings` declares what exists, `loading.load` reads it and reports every problem at once,
`report` prints it. Settings stop at `app`: the other rooms take plain values.
"""

from __future__ import annotations

from vault_ml.settings.fields import Settings
from vault_ml.settings.loading import keys_of_recordings, load, notices, unknown_variables
from vault_ml.settings.report import Row, describe, markdown_table

__all__ = [
    "Row",
    "Settings",
    "describe",
    "keys_of_recordings",
    "load",
    "markdown_table",
    "notices",
    "unknown_variables",
]
