"""The advantage estimators of `advantage_estimator`: the functions of alignment/ops that are marked with `@estimator`.

The marks are read from the source, so that a recipe is checked without torch. To add an estimator, write a pure
function with the signature of `alignment.ops.advantages.gae_estimator` in a module of alignment/ops and mark it. Its
keyword-only parameters are recipe keys of the same name; one without a default must be a key of every stage that offers
the estimator.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "ops"


@dataclass(frozen=True, slots=True)
class EstimatorEntry:
    """One advantage estimator."""

    function: str  # "module:function"
    uses_value: bool  # False: no value is loaded, trained, logged, planned or saved
    keys: tuple[str, ...] = ()  # of PPO's recipe, that it reads
    compares: bool = False  # it compares the answers to one prompt, and needs two or more
    whitens: bool = False  # its source whitens the advantages of a rollout


def marked_estimators(folder: Path) -> dict[str, EstimatorEntry]:
    """Return the estimators that the modules of a folder mark, by the name in their mark.

    Raises: ValueError if an argument of a mark is not a constant, or two functions have one name.
    """
    found: dict[str, EstimatorEntry] = {}
    for file in sorted(folder.glob("*.py")):
        source = file.read_text(encoding="utf-8")
        if "@estimator(" not in source:
            continue
        for function in (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)):
            for mark in function.decorator_list:
                if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "estimator":
                    (name,) = map(ast.literal_eval, mark.args)
                    if name in found:
                        raise ValueError(f"{file}: {found[name].function} has the name {name} too")
                    facts = {each.arg or "": ast.literal_eval(each.value) for each in mark.keywords}
                    found[name] = EstimatorEntry(f"alignment.ops.{file.stem}:{function.name}", **facts)
    return found


ADVANTAGE_ESTIMATORS: dict[str, EstimatorEntry] = marked_estimators(FOLDER)
