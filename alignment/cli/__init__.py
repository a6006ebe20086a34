"""The command `alignment`: parses, hands on, and tells errors in one line. Importing it imports no torch.

The top floor: the one package of `alignment` that calls `recipes` and `reward`, inside the verb that needs them. Verbs
stand in `--help` in the order of their modules here.
"""

import os
import sys
from typing import Annotated

import typer

from alignment.cli.base import app

# isort: off
from alignment.cli import stages, whole, cluster, results, people  # noqa: F401
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
) -> None:
    """Options before a verb."""


def main() -> None:
    """Entry point of the command `alignment`."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a judge's `module:function` may lie in the working folder, as for `python -m`
    app()


__all__ = ["app", "main"]
