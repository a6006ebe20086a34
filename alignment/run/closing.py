"""The lines that a finished stage prints: what to look at in its results, and what to do next."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignment.config.schema import Recipe
from alignment.config.schema.keys import AdapterKeys

COMPARE = "compare it with its base in stage evaluate"
FEW_STOPPED = 0.5  # share of answers below which a stage reports how few ended by themselves


def closing(recipe: Recipe, results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the last lines of a stage.

    Args:
        results: the stage's results, as in manifest.json.
    """
    if "statuses" in results:
        yield _labels(recipe.output_dir, results)
    stopped = results.get("fraction_stopped")
    if stopped is not None and stopped < FEW_STOPPED:
        yield (
            f"{stopped:.0%} of the answers ended by themselves; the others were cut at max_new_tokens "
            f"{getattr(recipe, 'max_new_tokens', '')}. Raise it, or check eos_token: `alignment preview` shows the "
            "stop tokens."
        )
    yield f"saved {recipe.output_dir}{_next(recipe)}"


def _labels(run: str, results: Mapping[str, Any]) -> str:
    """Return how many pairs have a winner, and whether the order of the answers decided."""
    pairs, statuses = results["pairs"], results["statuses"]
    counts = [f"{results['decided']} decided", f"{results['undecided']} ties"]
    counts += [f"{count} {status}" for status, count in statuses.items() if status not in ("ok", "tie")]
    line = f"{pairs} pairs: {', '.join(counts)}"
    if results["both_orders"]:
        share = results["same_position"] / results["both_orders"]
        line += f"; the same position won in both orders in {share:.0%}"
    if pairs and not results["decided"]:
        line += f". No pair has a winner, so these labels train nothing: run `alignment audit {run}`"
    return line


def _next(recipe: Recipe) -> str:
    makes_policy = recipe.STAGE.makes == "policy"
    steps = [recipe.STAGE.next_step or (COMPARE if makes_policy else "")]
    if makes_policy and isinstance(recipe, AdapterKeys) and recipe.method.has_adapter and recipe.method.merges:
        steps.append("make it one plain model with `alignment merge {run} MERGED`")
    run = Path(recipe.output_dir)
    found = ", or ".join(step for step in steps if step)
    return f"; next: {found.format(run=run, parent=run.parent)}" if found else ""
