"""Reparses a finished evaluation from its recorded answers and calls."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.calls.caller import DryCaller
from alignment.calls.session import STORE
from alignment.calls.store import CallStore
from alignment.config.launched import Launch
from alignment.config.schema import EvaluateRecipe, Mark, keys_marked
from alignment.errors import AlignmentError, DataError
from alignment.evaluate.cached_judge import VERDICTS, CachedJudge
from alignment.evaluate.results import judge_candidates, pick_examples, reward_agreement, verdict_columns, win_rates
from alignment.json_lines import objects_of
from alignment.manifest import read_manifest
from alignment.run.differences import differences
from alignment.run.directory import RunDirectory, recipe_as_now, resolved_recipe
from alignment.run.files import read_json_object, write_json, write_jsonl
from reward.judges import build_judge

FRESH = "verdicts.reparsed.jsonl"
DAMAGED = "the file was edited or damaged. Restore it, or evaluate into another output_dir."


# Keys that may differ in a reparse: those of reading replies, and those that affect no result.
MAY_DIFFER = keys_marked(Mark.FREE, Mark.LATE) | {"judges", "num_examples"}


@dataclass(frozen=True, slots=True)
class Answers:
    """One policy's recorded answers, one per prompt and generation."""

    name: str
    texts: list[str]


def reparse(recipe: EvaluateRecipe) -> dict[str, Any]:
    """Write a finished evaluation's verdicts and win rates again from its calls, with the recipe's present judges.

    Results that do not depend on judges are unchanged. Makes no call.

    Raises: AlignmentError if there is no finished run with its calls, or the recipe needs calls that were never made;
        the results are then unchanged.
    """
    path = Path(recipe.output_dir)
    manifest = read_manifest(path)
    finished = manifest.get("stage") == "evaluate" and manifest.get("status") == "finished"
    if not finished or not (path / STORE).is_file():
        raise AlignmentError(
            f"{path}: holds no finished run of stage evaluate with its {STORE}, which --reparse reads. Evaluate "
            "into another output_dir."
        )
    before = recipe_as_now(EvaluateRecipe, manifest.get("recipe", {}))
    changed = list(differences(before, resolved_recipe(recipe), free=MAY_DIFFER))
    if changed:
        raise AlignmentError(
            f"{path}: with --reparse only judges may differ, and {'; '.join(changed[:5])}. Restore the recipe, or "
            "evaluate into another output_dir."
        )
    rows, results = _recorded(path)
    every = results["answers_per_prompt"]
    forgiving = recipe.model_copy(update={"max_failure_share": 1.0, "num_generations": every})
    prompts, clusters = [row["prompt"] for row in rows], [place // every for place in range(len(rows))]
    names = [results["baseline"], *results["candidates"]]
    baseline, *candidates = (Answers(name, [row["answers"][name] for row in rows]) for name in names)
    scored = {
        name: [row["scores"][name] for row in rows] for name in names if all(name in row["scores"] for row in rows)
    }

    (path / FRESH).unlink(missing_ok=True)
    with CallStore(path / STORE, rejected=True) as store:
        callers = [DryCaller(store) for _ in recipe.judges]
        built = map(build_judge, recipe.judges, callers)
        judges = [CachedJudge(judge, path / FRESH) for judge in built]
        agreed = reward_agreement(forgiving, judges, prompts, clusters, baseline, scored) if scored else {}
        verdicts = judge_candidates(forgiving, judges, prompts, baseline, candidates)
        lacking = sum((caller.lacking for caller in callers), Counter())
        missing = store.never_made(lacking)
    if missing > 0:
        (path / FRESH).unlink(missing_ok=True)
        raise AlignmentError(
            f"{path}: the recipe needs {missing} calls that were never made (another judge or prompt); run it "
            "without --reparse to make them. The results are unchanged."
        )
    for row, column in zip(rows, verdict_columns(verdicts, len(rows)), strict=True):
        row["verdicts"] = column
    results |= {"judges": [judge.name for judge in judges], "win_rate": win_rates(forgiving, clusters, verdicts)}
    known = {name: found for name, found in agreed.items() if found is not None}
    if scored:
        results["details"]["reward_agreement"] = known
        results["reward_agreement"] = {name: found["value"] for name, found in known.items()}
    write_jsonl(path / "answers.jsonl", rows)
    write_jsonl(path / "examples.jsonl", pick_examples(rows, every, recipe.num_examples, recipe.seed))
    write_json(path / "results.json", results)
    os.replace(path / FRESH, path / VERDICTS)
    run = RunDirectory(path, recipe, Launch.of(recipe), True)
    judged_by = [entry.model_dump(mode="json") for entry in recipe.judges]
    run.record(results={**manifest.get("results", {}), **results}, reparsed={"judges": judged_by})
    return results


def _recorded(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows of answers.jsonl and the results of a finished evaluation.

    Raises: DataError if they are damaged.
    """
    try:
        rows = list(objects_of((path / "answers.jsonl").read_bytes(), path / "answers.jsonl"))
    except OSError as error:
        raise DataError(f"{path / 'answers.jsonl'}: {os.strerror(error.errno or 0)}; {DAMAGED}") from None
    results = read_json_object(path / "results.json")
    every, names = results.get("answers_per_prompt"), [results.get("baseline"), *(results.get("candidates") or [])]
    if not isinstance(every, int) or every < 1 or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path / 'results.json'}: has no answers_per_prompt, baseline or candidates; {DAMAGED}")
    for number, row in enumerate(rows, 1):
        answers, scores = row.get("answers"), row.get("scores")
        texts = [answers.get(name) for name in names] if isinstance(answers, dict) else [None]
        whole = isinstance(scores, dict) and isinstance(row.get("prompt"), str | list)
        if not whole or not all(isinstance(text, str) for text in texts):
            raise DataError(f"{path / 'answers.jsonl'}:{number}: lacks an answer or scores; {DAMAGED}")
    return rows, results
