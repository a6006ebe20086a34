"""The command `alignment`. Errors are one line. Importing it does not import torch.

The top floor: the one package of `alignment` that calls `recipes` and `reward`, inside the verb that needs them. Verbs
are listed in `--help` in the order of their modules here.
"""

import os
import signal
import sys
from typing import Annotated

import typer

from alignment.cli.base import app

# isort: off
from alignment.cli import stages, recipes, cluster, results, policies, people  # noqa: F401
# isort: on


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"alignment-stack {version('alignment-stack')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Print the traceback of an unexpected error; as ALIGNMENT_TRACEBACK=1.")
    ] = False,
) -> None:
    """Options before a verb."""
    if traceback:
        os.environ["ALIGNMENT_TRACEBACK"] = "1"


def main() -> None:
    """Entry point of the command `alignment`.

    Ctrl-C ends the process while the command line is parsed: click would print "Aborted." and exit with 1. What is
    raised outside of a verb's own work is reported as it is inside.
    """
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # a judge's `module:function` may be there, as for `python -m`
        app()
    except Exception as error:
        from alignment.run.last_resort import UNEXPECTED, report

        typer.echo(report(error), err=True)
        sys.exit(UNEXPECTED)


__all__ = ["app", "main"]
