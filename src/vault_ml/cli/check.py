"""`vault-ml check` and `vault-ml doctor`: try everything a worker needs, once."""

from __future__ import annotations

import json
import os
import textwrap
from typing import Annotated

import typer

_MARKS = {"ok": "ok", "doubtful": "hm", "wrong": "NOT"}
_WIDTH = 100
# The longest name that `app.checks` gives.
_NAME_WIDTH = len("static memory")
_ADVICE = " " * (6 + _NAME_WIDTH)


def check(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Try the configuration: settings, model, detector, Vault, broker.

    Ends with 0 when all is well, 2 when something must be changed, 3 when something does not
    answer.
    """
    _examine(as_json=as_json, with_machine=False)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Try the configuration and the machine, and say what to do about what is wrong.

    Besides what `check` tries: processors and their quota, memory, limits, the cache, the GPU, what
    holds the decoders, the clock. What might be better is marked `hm` and is no failure. Ends as
    `check` does.
    """
    _examine(as_json=as_json, with_machine=True)


def _examine(*, as_json: bool, with_machine: bool) -> None:
    from vault_ml.app import checks
    from vault_ml.errors import ConfigError, VaultMLError
    from vault_ml.machine import Finding, Level

    code = 0
    for name, attempt in checks(os.environ, with_machine=with_machine):
        try:
            finding = attempt()
            if finding.level is Level.WRONG:
                code = 2
        except VaultMLError as error:
            finding = Finding(Level.WRONG, str(error))
            code = 2 if isinstance(error, ConfigError) else code or 3
        if as_json:
            line = {
                "check": name,
                "ok": finding.level is not Level.WRONG,
                "level": finding.level,
                "message": finding.sentence,
                "advice": finding.advice,
            }
            print(json.dumps(line), flush=True)
            continue
        print(f"{_MARKS[finding.level]:<3}  {name:<{_NAME_WIDTH}} {finding.sentence}", flush=True)
        if finding.advice:
            print(
                textwrap.fill(
                    finding.advice,
                    _WIDTH,
                    initial_indent=_ADVICE + "-> ",
                    subsequent_indent=_ADVICE + "   ",
                ),
                flush=True,
            )
    raise typer.Exit(code)
