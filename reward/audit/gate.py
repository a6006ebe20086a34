"""A gate between labels and training: the recipe's limits on comparisons judged by people, and on all labels.

The judge labels people's comparisons first, so that a judge that fails costs only those calls. Labels that miss
a limit afterwards are written as `rejected.jsonl`, which no training stage reads.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.calls.store_rows import Sampled
from alignment.config.schema import GateEntry, LabelRecipe
from alignment.data import ranking_to_json
from alignment.data.rows import Ranking
from alignment.errors import GateError
from alignment.evaluate.statistics import Bootstrap
from alignment.manifest import read_manifest
from alignment.report.charts import number
from alignment.run.directory import RunDirectory
from alignment.run.files import write_json, write_jsonl
from reward.audit.against import matches
from reward.audit.audit import audit
from reward.audit.calibration import Calibration, fit_matches
from reward.audit.items import Judged, People, Reading, gold_rankings, items_of, read_gold
from reward.labels.files import GOLD_LABELS, LABELS, REJECTED

CALIBRATION = "calibration.json"
Ask = Callable[[list[Sampled]], list[Ranking]]  # labels answers by the judge, as the labeler does


@dataclass(frozen=True, slots=True)
class Limit:
    """One key of a gate: the number that it bounds."""

    key: str
    name: str  # in messages
    path: tuple[str, ...]  # to the number in an audit
    people: bool  # whether it needs people's judgements


LIMITS = (
    Limit("min_kappa", "Cohen's kappa", ("against", "kappa"), True),
    Limit("min_accuracy", "accuracy", ("against", "accuracy"), True),
    Limit("min_accuracy_when_consistent", "accuracy where orders agree", ("against", "accuracy_when_consistent"), True),
    Limit("max_length_bias", "length bias beyond people's", ("against", "length_bias_difference"), True),
    Limit("max_ece", "expected calibration error", ("calibration", "before", "ece"), True),
    Limit("min_coverage", "coverage", ("measures", "coverage"), False),
    Limit("min_consistency", "agreement of the two orders", ("measures", "consistency"), False),
    Limit("max_position_bias", "position bias", ("measures", "position_bias"), False),
    Limit("max_cyclic_triads", "share of circular triads", ("measures", "cyclic_triads"), False),
    Limit("max_tie_rate", "tie rate", ("measures", "tie_rate"), False),
)


@dataclass(frozen=True, slots=True)
class OnGold:
    """The judge's labels of people's comparisons; empty without gold in the recipe."""

    rankings: list[Ranking]
    calibration: Calibration | None
    numbers: dict[str, Any] | None  # the audit of the slice


def missed(gate: GateEntry, numbers: dict[str, Any], *, people: bool = True) -> list[str]:
    """Return by how much an audit misses a gate's limits, as text; [] if it passes.

    With `whole_interval` the worse end of each interval must hold, else the value. Biases are bounded on both sides.

    Args:
        people: False: without the limits that need people's judgements.
    """
    found = []
    matched = (numbers["against"] or {}).get("comparisons", 0)
    if people and gate.gold and matched < gate.min_comparisons:
        found.append(f"{matched} comparisons have people's judgements, min_comparisons is {gate.min_comparisons}")
    for limit in LIMITS:
        bound = getattr(gate, limit.key)
        if bound is None or (limit.people and not people):
            continue
        measure: Any = numbers
        for step in limit.path:
            measure = (measure or {}).get(step)
        if measure is None or measure["value"] is None:
            if (
                limit.people or limit.key == "min_coverage"
            ):  # without triads, or with one order alone, there is nothing to limit
                found.append(f"{limit.name} cannot be measured: there are no comparisons to count")
            continue
        value, words = _held(measure, limit.key.startswith("max"), gate.whole_interval)
        short = value - bound if limit.key.startswith("max") else bound - value
        if short > 0:
            side = "above" if limit.key.startswith("max") else "below"
            found.append(f"{limit.name} {words} is {number(short)} {side} {limit.key} {bound:g}")
    return found


def _held(measure: dict[str, Any], upper: bool, whole: bool) -> tuple[float, str]:
    """Return the number that is compared with a limit, and its text."""
    value = float(measure["value"])
    ends = [float(end) for end in (measure.get("low"), measure.get("high")) if end is not None]
    words = number(value) + (f" [{number(ends[0])}, {number(ends[1])}]" if len(ends) == 2 else "")
    held = ends if whole and len(ends) == 2 else [value]
    return (max(abs(end) for end in held) if upper else min(held)), words


def ask_gold(recipe: LabelRecipe, run: RunDirectory, ask: Ask) -> OnGold:
    """Label people's comparisons by the judge, before any other call.

    Raises: GateError if these labels miss the gate; DataError if they cannot be read or are too few for a calibration.
    """
    gate, calibration, path = recipe.gate, recipe.calibration, next(iter(_gold_files(recipe)), None)
    if path is None:
        return OnGold([], None, None)
    rankings = ask(gold_samples(recipe))
    judged = Judged(recipe.judge.name or "judge", list(items_of(rankings)), rankings)
    reading = Reading(on_bad_row=recipe.on_bad_row)
    people = read_gold(path, reading)
    write_jsonl(run.path / GOLD_LABELS, [ranking_to_json(ranking) for ranking in rankings])
    numbers = audit(judged, people, _how(recipe))
    if gate is not None and gate.gold:
        _refuse(run, missed(gate, numbers), f"on {gate.gold}", "No other call was made")
    if calibration is None:
        return OnGold(rankings, None, numbers)
    if calibration.gold != path:
        people = read_gold(calibration.gold, reading)
    return OnGold(rankings, fit_matches(matches(judged.items, people), calibration.method), numbers)


def accept(recipe: LabelRecipe, run: RunDirectory, rankings: list[Ranking], on_gold: OnGold) -> list[Ranking]:
    """Calibrate labels and check them by the gate; returns the labels for training.

    Raises: GateError if they miss the gate, after writing them as `rejected.jsonl`.
    """
    if on_gold.calibration is not None:
        rankings = on_gold.calibration.on(rankings)
        write_json(run.path / CALIBRATION, {**on_gold.calibration.as_json(), "gold": _calibrated_on(recipe)})
        run.record(calibration=on_gold.calibration.as_json())
    if recipe.gate is None:
        if "gate" in read_manifest(run.path):  # of an earlier attempt, when the recipe still had one
            run.record(gate=None)
            _forget(run.path / REJECTED)
        return rankings
    numbers = audit(Judged("labels", list(items_of(rankings)), rankings), People(), _how(recipe))
    found = missed(recipe.gate, numbers, people=False)
    if found:
        write_jsonl(run.path / REJECTED, [ranking_to_json(ranking) for ranking in rankings])
        _forget(run.path / LABELS)
    _refuse(run, found, "over all labels", f"They are written as {REJECTED}, which no training stage reads")
    _forget(run.path / REJECTED)
    run.record(gate={"passed": True, "missed": [], "on_gold": on_gold.numbers})
    return rankings


def check(gate: GateEntry, audits: Sequence[dict[str, Any]], *, voices: bool) -> None:
    """Check audits by a gate, as `alignment audit --gate` does.

    Args:
        voices: whether people's preferences were given; without them, and without gold in the gate, limits that need
            them are skipped.

    Raises: GateError if a judge misses it.
    """
    if not audits:
        raise GateError("the gate limits a judge's labels, and all of these are people's.")
    found = [
        f"{numbers['judge']}: {line}"
        for numbers in audits
        for line in missed(gate, numbers, people=voices or bool(gate.gold))
    ]
    if found:
        raise GateError(f"the gate is missed:{_listed(found)}")


def _refuse(run: RunDirectory, found: list[str], where: str, kept: str) -> None:
    if not found:
        return
    run.record(gate={"passed": False, "missed": found}, status="failed")
    raise GateError(
        f"{run.path}: the judge misses the gate {where}:{_listed(found)}\n{kept}. `alignment audit {run.path}` shows "
        "why. Correct the judge or its prompt, or change the gate; the same command continues from the replies "
        "so far."
    )


def _forget(file: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        file.unlink()


def _listed(found: Sequence[str]) -> str:
    return "".join(f"\n  {line}" for line in found)


def gold_samples(recipe: LabelRecipe) -> list[Sampled]:
    """Return the distinct sets of answers that people compared, for the judge to label.

    Their positions are negative, to distinguish them from the run's own prompts.
    """
    reading = Reading(on_bad_row=recipe.on_bad_row)
    rankings = [ranking for path in _gold_files(recipe) for ranking in gold_rankings(path, reading)]
    unique = {(repr(r.prompt), tuple(r.responses)): r for r in rankings}
    return [Sampled.of(-1 - place, ranking) for place, ranking in enumerate(unique.values())]


def _gold_files(recipe: LabelRecipe) -> list[str]:
    named = [entry.gold for entry in (recipe.gate, recipe.calibration) if entry is not None and entry.gold]
    return list(dict.fromkeys(named))


def _calibrated_on(recipe: LabelRecipe) -> str:
    return recipe.calibration.gold if recipe.calibration is not None else ""


def _how(recipe: LabelRecipe) -> Bootstrap:
    return Bootstrap(seed=recipe.seed)


def gate_of(path: Path) -> GateEntry:
    """Read the gate of a label recipe.

    Raises: RecipeError if the recipe has faults; GateError if it has no gate.
    """
    from alignment.config import load_recipe

    recipe = load_recipe(LabelRecipe, ["--config", str(path)])
    gate = getattr(recipe, "gate", None)
    if not isinstance(gate, GateEntry):
        raise GateError(f"{path} has no gate: write one, gate: {{min_coverage: 0.95}} for example.")
    return gate
