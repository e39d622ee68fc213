"""The command ``guidebook``: its commands, and one sentence for every mistake."""

import atexit
import os
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import typer

from guidebook.commands.calibrate import calibrate
from guidebook.commands.check import check
from guidebook.commands.choose import choose
from guidebook.commands.compare import compare
from guidebook.commands.explore import explore
from guidebook.commands.fit import fit
from guidebook.commands.index import index_reports
from guidebook.commands.interrupts import NAMES, Interrupts, interruptible
from guidebook.commands.list_models import list_models
from guidebook.commands.predict import predict
from guidebook.commands.rerun import rerun
from guidebook.commands.resume import resume
from guidebook.commands.run import run
from guidebook.commands.sweep import sweep
from guidebook.commands.tables import reads_tables
from guidebook.workflow.drafts import release_all

INTERRUPTED = 128 + signal.SIGINT
ENDED_BY_SIGNALS = [128 + getattr(signal, name) for name in NAMES if hasattr(signal, name)]

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
    "sweep": reads_tables(sweep),
    "resume": resume,
    "index": index_reports,
    "explore": explore,
    "rerun": rerun,
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


def entry() -> None:
    """Run the command as a process of its own.

    After a signal the process ends without taking modules apart: native libraries whose import or work was cut short
    may crash there, and the status would be that of the crash.
    """
    try:
        main()
    except SystemExit as stop:
        if isinstance(stop.code, int) and stop.code in ENDED_BY_SIGNALS:
            atexit._run_exitfuncs()  # of joblib, say, which removes its shared memory
            sys.stderr.flush()
            os._exit(stop.code)
        raise


def main() -> None:
    """Run the command. User errors exit with status 2, failed fits with status 1; both print one sentence.

    SIGINT, SIGTERM and SIGHUP end it with 128 + their number, and nothing half-written stays.
    """
    warnings.showwarning = _once()
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("always", r"[a-z]+: ", UserWarning, r"guidebook\.")  # ours begin with a method's name
    with interruptible(release_all) as interrupts:
        try:
            status = _run(interrupts)
        finally:
            release_all()
    sys.exit(status)


def _run(interrupts: Interrupts) -> int:
    """Run the command and return its exit status."""
    try:
        status = app(standalone_mode=False)
        sys.stdout.flush()
        if status == INTERRUPTED:  # typer has caught it
            raise KeyboardInterrupt
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", interrupts.status)
    except Exception as error:
        if interrupts.signal is not None:  # an import, say, that was cut short
            return _fail("interrupted", interrupts.status)
        if isinstance(error, OSError):
            where = "" if error.filename is None else f"{error.filename}: "
            if error.strerror is None:
                return _fail(str(error), 1 if isinstance(error, ConnectionError) else 2)
            return _fail(where + error.strerror, 2)
        if isinstance(error, ValueError | ArithmeticError):
            return _fail(str(error), 2 if isinstance(error, ValueError) else 1)
        if not hasattr(error, "format_message"):  # typer's usage errors have it; anything else is a defect
            raise
        return _fail(error.format_message(), 2)  # pyright: ignore[reportAttributeAccessIssue]
    return status or 0


def _fail(sentence: str, status: int) -> int:
    with suppress(OSError):  # where the terminal is gone
        print(f"guidebook: {' '.join(sentence.split())}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # what could not be printed would be tried, and complained of, again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _once() -> Callable[..., None]:
    """Return what prints a warning, unless it has printed the same sentence before: a fit warns at each restart."""
    shown = set()

    def show(message: Warning | str, *_: Any) -> None:
        if str(message) not in shown:
            shown.add(str(message))
            print(f"guidebook: warning: {message}", file=sys.stderr)

    return show
