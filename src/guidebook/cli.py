"""The command ``guidebook``: its commands, and one sentence for every mistake."""

import sys
import warnings
from typing import Annotated, Any

import typer

from guidebook.commands.calibrate import calibrate
from guidebook.commands.check import check
from guidebook.commands.choose import choose
from guidebook.commands.compare import compare
from guidebook.commands.fit import fit
from guidebook.commands.index import index_reports
from guidebook.commands.list_models import list_models
from guidebook.commands.predict import predict
from guidebook.commands.run import run
from guidebook.commands.tables import reads_tables

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Probabilistic models in Pyro: fit them by many methods and ask whether the fast answer is good enough.",
)
for name, command in {
    "list": list_models,
    "fit": reads_tables(fit),
    "run": reads_tables(run),
    "check": reads_tables(check),
    "calibrate": reads_tables(calibrate),
    "predict": predict,
    "compare": reads_tables(compare),
    "choose": reads_tables(choose),
    "index": index_reports,
}.items():
    app.command(name)(command)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    """Print the version if asked to."""
    if show:
        from guidebook import __version__

        print(f"guidebook {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command. User errors exit with status 2, failed fits with status 1; both print one sentence."""
    warnings.showwarning = _show_warning
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("always", r"[a-z]+: ", UserWarning, r"guidebook\.")  # ours begin with a method's name
    try:
        status = app(standalone_mode=False)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        status = _fail(str(error) if error.strerror is None else where + error.strerror, 2)
    except ValueError as error:
        status = _fail(str(error), 2)
    except ArithmeticError as error:
        status = _fail(str(error), 1)
    except KeyboardInterrupt:
        status = _fail("interrupted", 130)
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's usage errors have it; anything else is a defect
            raise
        status = _fail(error.format_message(), 2)  # pyright: ignore[reportAttributeAccessIssue]
    sys.exit(status)


def _fail(sentence: str, status: int) -> int:
    print(f"guidebook: {' '.join(sentence.split())}", file=sys.stderr)
    return status


def _show_warning(message: Warning | str, *_: Any) -> None:
    print(f"guidebook: warning: {message}", file=sys.stderr)
