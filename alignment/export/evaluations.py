"""What evaluations found of a run: the numbers of stage `evaluate`, with their intervals."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.errors import AlignmentError
from alignment.export.ancestry import places
from alignment.manifest import read_manifest
from alignment.run.files import read_json_object

RESULTS = "results.json"
TITLES = {
    "kl": "KL to the baseline, nats",
    "reward_score": "score of the reward model",
    "perplexity": "perplexity outside the domain",
    "answer_tokens": "tokens of an answer",
}


@dataclass(frozen=True)
class Measured:
    """One number."""

    what: str
    value: float
    low: float | None
    high: float | None
    count: int | None


@dataclass(frozen=True)
class Evaluation:
    """One evaluation's numbers of a run."""

    folder: Path
    baseline: str
    level: float  # of the intervals
    finished: str
    prompts: int | None
    numbers: list[Measured]


def evaluations_of(run: Path, named: Path | None = None) -> list[Evaluation]:
    """Return the evaluations of a run: the one in a folder that is named, else those in the folders beside the run.

    Raises: AlignmentError if the named folder holds none of this run.
    """
    if named is not None:
        found = _read(named, run)
        if found is None:
            raise AlignmentError(f"{named}: is no finished evaluation in which {run} was compared; name its folder.")
        return [found]
    beside = sorted(folder for folder in run.resolve().parent.iterdir() if folder.is_dir())
    return [found for folder in beside if (found := _quietly(folder, run)) is not None]


def _quietly(folder: Path, run: Path) -> Evaluation | None:
    try:
        return _read(folder, run)
    except (AlignmentError, OSError):
        return None  # another run's damage


def _read(folder: Path, run: Path) -> Evaluation | None:
    manifest = read_manifest(folder)
    if manifest.get("stage") != "evaluate" or manifest.get("status") != "finished":
        return None
    recipe, results = manifest.get("recipe", {}), read_json_object(folder / RESULTS)
    candidates = [entry for entry in recipe.get("candidates", []) if isinstance(entry, dict)]
    name = next((entry["name"] for entry in candidates if _is(entry.get("model_name_or_path"), folder, run)), None)
    if name is None and _is(recipe.get("model_name_or_path"), folder, run):
        name = results.get("baseline")
    if name is None:
        return None
    return Evaluation(
        folder,
        str(results.get("baseline", "")),
        float(results.get("confidence_level", 0.95)),
        str(manifest.get("finished", "")),
        results.get("prompts"),
        list(_numbers(results, name)),
    )


def _is(path: Any, folder: Path, run: Path) -> bool:
    return isinstance(path, str) and run.resolve() in places(path, folder)


def _numbers(results: dict[str, Any], name: str) -> Iterator[Measured]:
    for judge, found in (results.get("win_rate", {}).get(name) or {}).items():
        yield from _measured(f"win rate by {judge}", found)
    for key, title in TITLES.items():
        yield from _measured(title, results.get("details", {}).get(key, {}).get(name))


def _measured(what: str, found: Any) -> Iterator[Measured]:
    if isinstance(found, dict) and isinstance(found.get("value"), int | float):
        low, high = (found.get(key) if isinstance(found.get(key), int | float) else None for key in ("low", "high"))
        count = found.get("n") if isinstance(found.get("n"), int) else found.get("tokens")
        yield Measured(what, found["value"], low, high, count if isinstance(count, int) else None)
