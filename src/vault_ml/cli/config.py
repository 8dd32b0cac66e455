"""`vault-ml config`: the settings in force."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer


def config(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Print every setting, its value (secrets masked) and where it comes from."""
    from vault_ml import settings

    rows = settings.describe(settings.load(os.environ), os.environ)
    if as_json:
        print(
            json.dumps(
                {row.name: {"value": row.value, "source": row.source} for row in rows}, indent=2
            )
        )
        return
    width = max(len(row.name) for row in rows)
    value_width = min(48, max(len(row.value) for row in rows))
    for row in rows:
        alias = f" ({row.alias})" if row.alias else ""
        print(f"{row.name:<{width}}  {row.value:<{value_width}}  {row.source}{alias}")
    for notice in settings.notices(os.environ):
        print(f"note: {notice}", file=sys.stderr)
