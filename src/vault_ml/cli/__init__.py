"""The command `vault-ml`. One file per command; heavy imports stand inside the functions.

Data goes to standard output, everything else to standard error. Exit codes: 0 fine, 1 something
failed, 2 configuration, 3 a dependency cannot be reached.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer

from vault_ml.cli import dlq, models
from vault_ml.cli.bench import bench
from vault_ml.cli.check import check, doctor
from vault_ml.cli.config import config
from vault_ml.cli.convert import convert
from vault_ml.cli.demo import demo
from vault_ml.cli.detect import detect
from vault_ml.cli.plan import plan
from vault_ml.cli.quantize import quantize
from vault_ml.cli.run import run
from vault_ml.cli.verify import verify
from vault_ml.cli.zones import zones
from vault_ml.errors import ConfigError, UnavailableError, VaultMLError

app = typer.Typer(
    name="vault-ml",
    help="Looks at CCTV recordings stored in Kerberos Vault with YOLOv3 and says what it saw.",
    no_args_is_help=True,
    add_completion=False,
    # Plain help: rich's boxes cost a third of a second on a small machine. And no pretty
    # exceptions: they show local variables, and those may be secrets.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("run")(run)
app.command("detect")(detect)
app.command("demo")(demo)
app.command("check")(check)
app.command("doctor")(doctor)
app.command("config")(config)
app.command("convert")(convert)
app.command("quantize")(quantize)
app.command("verify")(verify)
app.command("zones")(zones)
app.command("bench")(bench)
app.command("plan")(plan)
app.add_typer(dlq.app, name="dlq")
app.add_typer(models.app, name="models")

# Options and commands that are none. Typer has click's classes, from click or from a copy of its
# own; this is the one that all of them inherit from: ClickException.
_WRONG_WORDS: Any = typer.BadParameter.__bases__[0].__bases__[0]


@app.command("version")
def version() -> None:
    """Print the version."""
    from vault_ml import __version__

    print(__version__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; a problem of the user's becomes one sentence and an exit code."""
    try:
        code = app(args=arguments, standalone_mode=False) or 0
    except VaultMLError as error:
        print(f"vault-ml: {error}", file=sys.stderr)
        if isinstance(error, ConfigError):
            code = 2
        else:
            code = 3 if isinstance(error, UnavailableError) else 1
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:
        # The reader went away (`| head`); Python would complain once more at exit.
        sys.stderr.close()
        code = 0
    except typer.Exit as stop:
        code = stop.exit_code
    except _WRONG_WORDS as error:
        error.show()
        code = 2
    sys.exit(code)
