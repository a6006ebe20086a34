"""A verb for each stage."""

import importlib
from collections.abc import Callable

import typer

from alignment.cli.base import STAGE_PANEL, verb

PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
STAGES = {
    "sft": "Fine-tune a model on demonstrations.",
    "label": "Sample answers from a policy and have a judge rank them.",
    "reward": "Train a reward model on rankings and pairs.",
    "dpo": "Align a policy with rankings directly (DPO and its kin).",
    "ppo": "Align a policy with a reward model (PPO).",
    "evaluate": "Compare candidates with a baseline on held-out prompts.",
}


def _stage(name: str) -> Callable[[typer.Context], None]:
    """Run a stage's script; faults of the recipe are told before anything heavy is imported."""

    def run(context: typer.Context) -> None:
        from alignment.config import load_recipe

        load_recipe(name, context.args)
        importlib.import_module(f"recipes.{name}").main(context.args)

    return run


for _name, _help in STAGES.items():
    verb(_name, help=_help, rich_help_panel=STAGE_PANEL, context_settings=PASS_THROUGH)(_stage(_name))
