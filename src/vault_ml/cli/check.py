"""`vault-ml check`: try everything a worker needs, once."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer


def check(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Try the configuration: settings, model, detector, Vault, broker.

    Ends with 0 when all is well, 2 when something must be changed, 3 when something does not
    answer.
    """
    from vault_ml.app import checks
    from vault_ml.errors import ConfigError, VaultMLError

    code = 0
    for name, attempt in checks(os.environ):
        try:
            sentence = attempt()
            is_well = True
        except VaultMLError as error:
            sentence, is_well = str(error), False
            code = 2 if isinstance(error, ConfigError) else code or 3
        if as_json:
            print(json.dumps({"check": name, "ok": is_well, "message": sentence}), flush=True)
        else:
            print(f"{'ok ' if is_well else 'NOT'}  {name:<9} {sentence}", flush=True)
        if name == "settings" and not is_well:
            break  # nothing else can be tried
    raise typer.Exit(code)
