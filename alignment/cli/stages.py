"""A verb for each stage."""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from alignment.cli.base import STAGE_PANEL, verb
from alignment.stages import help_texts

if TYPE_CHECKING:
    from alignment.preview.command import Reader

PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def preview_reader(stage: str) -> "Reader | None":
    """Return the function `preview` of a stage's script, which reads the rows that `alignment preview` shows."""
    return getattr(importlib.import_module(f"recipes.{stage}"), "preview", None)


def _stage(name: str) -> Callable[[typer.Context], None]:
    """Run a stage's script; report faults of the recipe before importing anything heavy."""

    def run(context: typer.Context) -> None:
        from alignment.config import load_recipe

        load_recipe(name, context.args)
        importlib.import_module(f"recipes.{name}").main(context.args)

    return run


for _name, _help in help_texts().items():
    verb(_name, help=_help, rich_help_panel=STAGE_PANEL, context_settings=PASS_THROUGH)(_stage(_name))
