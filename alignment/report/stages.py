"""What ran: each stage with its inputs, its time, and its lineage."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.report.charts import Chart, number
from alignment.report.curves import charts_of, not_finite
from alignment.report.reading import Run
from alignment.report.wording import duration, percent

TITLES = {
    "sft": "Supervised fine-tuning",
    "label": "Sampling and judging",
    "reward": "Reward model",
    "dpo": "DPO",
    "ppo": "PPO",
    "evaluate": "Evaluation",
}
SHORT_HASH = 12


@dataclass
class StageView:
    """One stage, ready for the page."""

    name: str
    title: str
    tone: str
    status: str
    model: str
    data: str
    steps: str
    time: str
    share: float  # of the longest stage's time, 0 to 1
    charts: list[Chart] = field(default_factory=list)
    more_charts: list[Chart] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)  # for the folded part
    recipe: str = ""
    problems: list[str] = field(default_factory=list)


def stage_views(runs: Sequence[Run], tones: dict[str, str]) -> list[StageView]:
    """Lay out every stage; `tones` by run name."""
    longest = max((run.seconds or 0.0 for run in runs), default=0.0)
    names = {str(run.path): run.name for run in runs}
    views = []
    for run in runs:
        main, more, single = charts_of(run.metrics)
        recipe = run.manifest.get("recipe")
        recipe = recipe if isinstance(recipe, dict) else {}
        view = StageView(
            name=run.name,
            title=TITLES.get(run.stage, run.stage),
            tone=tones.get(run.name, "reward" if run.stage == "reward" else "other"),
            status=run.status,
            model=" + ".join(_place(path, names) for path in _models(recipe)),
            data=", ".join(_place(path, names) for path in _data(recipe)),
            steps=_steps(run),
            time=duration(run.seconds),
            share=(run.seconds or 0.0) / longest if longest else 0.0,
            charts=main,
            more_charts=more,
            facts=_facts(run, single),
            recipe=run.recipe,
            problems=run.problems + not_finite(run.metrics),
        )
        if run.status in ("failed", "interrupted", "running"):
            view.problems.insert(0, {"running": "it has not finished"}.get(run.status, f"it {_ended(run.status)}"))
        views.append(view)
    return views


def training_judges(runs: Sequence[Run]) -> list[str]:
    """Names under which the labelling stages' judges are known."""
    names: list[str] = []
    for run in runs:
        recipe = run.manifest.get("recipe")
        judge = recipe.get("judge") if run.stage == "label" and isinstance(recipe, dict) else None
        if isinstance(judge, dict):
            names += [str(judge[key]) for key in ("name", "function", "model") if judge.get(key)]
    return names


def _ended(status: str) -> str:
    return "failed; its log tells why" if status == "failed" else "was interrupted"


def _models(recipe: dict[str, Any]) -> list[str]:
    keys = ("model_name_or_path", "reward_model_path")
    return [str(recipe[key]) for key in keys if recipe.get(key)]


def _data(recipe: dict[str, Any]) -> list[str]:
    entries = recipe.get("datasets")
    return [str(e["path"]) for e in entries if isinstance(e, dict) and "path" in e] if isinstance(entries, list) else []


def _place(path: str, names: dict[str, str]) -> str:
    """Name a path by the run it lies in, else by its last two parts."""
    resolved = Path(path).resolve()
    for folder in (resolved, *resolved.parents):
        if str(folder) in names:
            return names[str(folder)]
    parts = Path(path).parts
    return "/".join(parts[-2:]) if len(parts) > 2 or Path(path).is_absolute() else path


def _steps(run: Run) -> str:
    results = run.manifest.get("results")
    steps = results.get("steps") if isinstance(results, dict) else None
    if steps is None:
        steps = max((row["step"] for row in run.metrics if isinstance(row.get("step"), int)), default=None)
    return f"{steps:,}" if isinstance(steps, int) else "–"


def _facts(run: Run, single: dict[str, float]) -> list[tuple[str, str]]:
    manifest = run.manifest
    facts = [(key, str(manifest[key])) for key in ("started", "finished", "seed") if manifest.get(key) is not None]
    command = manifest.get("command")
    if isinstance(command, list):
        facts.append(("command", " ".join(map(str, command))))
    versions = manifest.get("versions")
    if isinstance(versions, dict):
        facts.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    if run.stage != "evaluate":
        facts += _flat("result", manifest.get("results"))
    told = {"stage", "status", "recipe", "seed", "command", "started", "finished", "versions", "results"}
    for key, value in manifest.items():
        if key not in told:
            facts += _flat(key, value)
    facts += [(f"logged once: {key}", number(value)) for key, value in single.items()]
    return facts


def _flat(name: str, value: object) -> list[tuple[str, str]]:
    """Turn nested mappings into dotted names with short values; lists are counted, hashes shortened."""
    if isinstance(value, dict):
        return [fact for key, inner in value.items() for fact in _flat(f"{name} · {key}", inner)]
    if isinstance(value, list):
        return [(name, ", ".join(map(str, value)) if len(value) <= 8 and _plain(value) else f"{len(value)} entries")]
    if isinstance(value, float):
        return [(name, percent(value, 1) if "accuracy" in name and 0 <= value <= 1 else number(value))]
    text = str(value)
    is_hash = len(text) >= 40 and all(c in "0123456789abcdef" for c in text)
    return [(name, text[:SHORT_HASH] if is_hash else text)]


def _plain(value: list[Any]) -> bool:
    return all(isinstance(item, str | int | float) for item in value)
