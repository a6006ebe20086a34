"""The names of the stages, in the order in which they are listed.

A stage is one file, `alignment/config/schema/NAME.py`, with its recipe and everything that the rest of the package
reads of it, and one script, `recipes/NAME.py`, that runs it. To add a stage, write both and list its name here.
"""

import ast
from pathlib import Path

NAMES = (
    "synthesize",
    "prepare",
    "pretrain",
    "sft",
    "label",
    "reward",
    "dpo",
    "kto",
    "ppo",
    "grpo",
    "rloo",
    "evaluate",
)
SCHEMA = Path(__file__).parent / "config" / "schema"


def help_texts() -> dict[str, str]:
    """Return the help of each stage's verb, read from the source: to import the recipes takes half a second."""
    return {name: _help(SCHEMA / f"{name}.py") for name in NAMES}


def _help(file: Path) -> str:
    """Return the literal `help` of the file's `Stage(...)`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Stage":
            return str(next(ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg == "help"))
    raise AssertionError(f"{file} has no Stage(...)")
