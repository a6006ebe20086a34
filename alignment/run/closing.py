"""The lines that a finished stage prints: what to look at in its results, and what to do next."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignment.config.schema import Recipe
from alignment.config.schema.keys import AdapterKeys
from alignment.config.tasks import CAUSAL, MASKED, SEQ2SEQ
from alignment.run.files import read_json_object

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


def _usual(recipe: Recipe) -> str:
    """Return the stage's next step; "" where what it has made is not a decoder, which that step takes."""
    run = Path(recipe.output_dir)
    if recipe.STAGE.makes == "policy" and recipe.task == MASKED:
        return "load it with AutoModelForMaskedLM of transformers"
    adapter, config = (read_json_object(run / name) for name in ("adapter_config.json", "config.json"))
    encodes = adapter.get("task_type") == SEQ2SEQ or config.get("is_encoder_decoder")
    return "" if encodes and recipe.STAGE.makes == "policy" and recipe.task == CAUSAL else recipe.STAGE.next_step


def _next(recipe: Recipe) -> str:
    makes_policy = recipe.STAGE.makes == "policy"
    steps = [_usual(recipe) or (COMPARE if makes_policy else "")]
    if makes_policy and isinstance(recipe, AdapterKeys) and recipe.method.has_adapter and recipe.method.merges:
        steps.append("make it one plain model with `alignment merge {run} MERGED`")
    run = Path(recipe.output_dir)
    found = ", or ".join(step for step in steps if step)
    return f"; next: {found.format(run=run, parent=run.parent)}" if found else ""
