"""The stages of a run, with their inputs, time and lineage."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.report import kto_health
from alignment.report.charts import Chart, number
from alignment.report.curves import charts_of, not_finite
from alignment.report.health import HEALTHY, Finding, findings, is_ppo_log, watching
from alignment.report.overoptimization import Gap, gaps
from alignment.report.previews import Kept, kept_row
from alignment.report.reading import Run
from alignment.report.wording import duration, percent

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
    gaps: list[Gap] = field(default_factory=list)  # PPO: watching scorers against the distance from the reference
    kept: Kept | None = None  # a row as it was trained
    findings: list[Finding] | None = None  # of stages with health rules; None if too little was logged
    healthy: str = ""  # what no finding means
    made: list[list[str]] = field(default_factory=list)  # of a stage that makes data: a table of its steps, headed


def stage_views(runs: Sequence[Run], tones: dict[str, str]) -> list[StageView]:
    """Lay out every stage; `tones` by run name."""
    judges = training_judges(runs)
    longest = max((run.seconds or 0.0 for run in runs), default=0.0)
    views = []
    for run in runs:
        main, more, single = charts_of(run.metrics)
        view = StageView(
            name=run.name,
            title=run.about.title if run.about else run.stage,
            tone=tones.get(run.name, "reward" if run.makes == "reward_model" else "other"),
            status=run.status,
            model=" + ".join(_place(path, runs) for path in _models(_recipe(run))),
            data=", ".join(dict.fromkeys(_place(path, runs) for path in paths_of(run, "datasets"))),
            steps=_steps(run),
            time=duration(run.seconds),
            share=(run.seconds or 0.0) / longest if longest else 0.0,
            charts=main,
            more_charts=more,
            facts=_facts(run, single),
            recipe=run.recipe,
            problems=run.problems + not_finite(run.metrics),
            kept=kept_row(run.manifest),
        )
        if run.makes == "data":
            view.made = _made(run)
        if run.about is not None and run.about.is_online:
            if is_ppo_log(run.metrics):
                view.findings, view.healthy = findings(run.metrics, watching(runs, run, judges)), HEALTHY
            view.gaps = gaps(run.metrics)
        if run.about is not None and run.about.rows == "unpaired":
            view.findings, view.healthy = kto_health.findings(run.metrics, _recipe(run)), kto_health.HEALTHY
        if run.status in ("failed", "interrupted", "running"):
            view.problems.insert(0, {"running": "it has not finished"}.get(run.status, f"it {_ended(run.status)}"))
        views.append(view)
    return views


def _made(run: Run) -> list[list[str]]:
    """Return the table of what a stage did to its rows, in results.steps of its manifest; [] without one."""
    results = run.manifest.get("results")
    rows = _mappings(results.get("steps")) if isinstance(results, dict) else []
    if not rows or any(row.keys() != rows[0].keys() for row in rows):
        return []
    cells = [[f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()] for row in rows]
    return [[str(key).replace("_", " ") for key in rows[0]], *cells]


def training_judges(runs: Sequence[Run]) -> list[str]:
    """Return the judges whose labels a stage on this page trained on, or all labelling judges if no stage trained."""
    trained = [run for run in runs if run.about is not None and run.about.trains]
    read = [run_of(path, runs) for other in trained for path in paths_of(other, "datasets")]
    labelled = [run for run in runs if run.makes == "labels" and (run in read or not trained)]
    return [name for run in labelled for name in judge_names(run)]


def judge_names(run: Run) -> list[str]:
    """Names by which a labelling stage's judge may be known, the one tables use first."""
    judge = _recipe(run).get("judge")
    return (
        [str(judge[key]) for key in ("name", "function", "model") if judge.get(key)] if isinstance(judge, dict) else []
    )


def run_of(path: str, runs: Sequence[Run]) -> Run | None:
    """Return the run that contains a path; if the runs were moved, the one with that folder's name."""
    try:
        resolved = Path(path).resolve()
    except (OSError, ValueError):  # a name that no file can have
        return None
    for run in runs:
        if run.path in (resolved, *resolved.parents):
            return run
    return next((run for run in runs if run.name in Path(path).parts[-3:]), None)


def paths_of(run: Run, key: str) -> list[str]:
    """Paths of a recipe's list of data sets."""
    entries = _recipe(run).get(key)
    return [str(e["path"]) for e in entries if isinstance(e, dict) and "path" in e] if isinstance(entries, list) else []


def _recipe(run: Run) -> dict[str, Any]:
    recipe = run.manifest.get("recipe")
    return recipe if isinstance(recipe, dict) else {}


def _ended(status: str) -> str:
    return "failed; see its log" if status == "failed" else "was interrupted"


def _models(recipe: dict[str, Any]) -> list[str]:
    entries = [recipe, *_mappings(recipe.get("candidates"))]
    found = [name for entry in entries for name in _texts(entry.get("model_name_or_path"))]
    found += [name for key in ("reward_model_path", "value_model_path") for name in _texts(recipe.get(key))]
    for scorer in _mappings(recipe.get("scorers")):
        found += _texts(scorer.get("model_name_or_path")) or _texts(scorer.get("reward_models"))
    return found


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _texts(value: Any) -> list[str]:
    """Return a text, or the texts of a list; a manifest changed by hand may have any value."""
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and text]


def _place(path: str, runs: Sequence[Run]) -> str:
    """Name a path by the run that contains it, else by its last two parts."""
    run = run_of(path, runs)
    if run is not None:
        return run.name
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
    if run.makes != "results":
        facts += _flat("result", manifest.get("results"))
    told = {"preview", "stage", "status", "recipe", "seed", "command", "started", "finished", "versions", "results"}
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
