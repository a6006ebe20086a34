"""Reading of run directories; missing and damaged files are reported and do not stop the report."""

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.config.schema import STAGES, Stage
from alignment.errors import AlignmentError, JsonError
from alignment.json_lines import split
from alignment.stages import NAMES
from alignment.strict_json import OURS, parse

MARKS = ("manifest.json", "metrics.jsonl", "results.json")  # any of these makes a folder a run
ORDER = ("data", *NAMES)


@dataclass
class Run:
    """The readable content of one stage's folder."""

    path: Path
    name: str
    stage: str
    manifest: dict[str, Any] = field(default_factory=dict)
    recipe: str = ""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)  # evaluate's
    examples: list[dict[str, Any]] = field(default_factory=list)  # evaluate's
    seconds: float | None = None
    status: str = "unknown"  # finished, running, failed, unknown
    problems: list[str] = field(default_factory=list)

    @property
    def about(self) -> Stage | None:
        """The metadata of its stage; None for a stage that this release does not have."""
        return STAGES[self.stage].STAGE if self.stage in STAGES else None

    @property
    def makes(self) -> str:
        """What its stage makes."""
        return self.about.makes if self.about is not None else ""


@dataclass
class Runs:
    """The data of one page."""

    name: str
    runs: list[Run]
    problems: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        """Time of all stages together, None if none is known."""
        known = [run.seconds for run in self.runs if run.seconds is not None]
        return sum(known) if known else None

    @property
    def finished(self) -> str | None:
        """Time at which the last stage ended, or else began; ISO 8601."""
        times = [str(run.manifest.get("finished") or run.manifest.get("started") or "") for run in self.runs]
        return max(times, default="") or None


def read_runs(paths: Sequence[Path]) -> Runs:
    """Read run directories and folders of them.

    Raises: AlignmentError if a path does not exist, or holds no run.
    """
    if not paths:
        raise AlignmentError("no run was named; give a run directory, or a pipeline's folder of them.")
    found: list[Run] = []
    problems: list[str] = []
    names: list[str] = []
    for path in paths:
        if not path.is_dir():
            raise AlignmentError(f"{path}: no such folder; give a run directory, or a pipeline's folder of them.")
        folders = _folders(path)
        if not folders:
            raise AlignmentError(
                f"{path}: not a run: none of {', '.join(MARKS)} in it or in a folder in it. "
                "Give the output_dir of a stage or of a pipeline."
            )
        alone = folders == [path]
        pipeline = _json((path.resolve().parent if alone else path) / "pipeline.json", problems)
        stages = _stages(pipeline)
        runs = [_read_run(folder, stages.get(folder.resolve().name, {})) for folder in folders]
        names.append(str(pipeline.get("name") or path.resolve().name))
        if not alone:
            runs += _never_started(path, stages, runs)
            order = list(stages)
            runs.sort(key=lambda run: order.index(run.name) if run.name in order else len(order))
        found += [run for run in runs if run.path not in {known.path for known in found}]
    return Runs(" + ".join(dict.fromkeys(names)), found, list(dict.fromkeys(problems)))


def _folders(path: Path) -> list[Path]:
    """Return the folder itself if it is a stage's run, else its subfolders that are."""
    if (path / "manifest.json").is_file() or (path / "metrics.jsonl").is_file():
        return [path]
    inside = [f for f in sorted(path.iterdir()) if f.is_dir() and any((f / mark).is_file() for mark in MARKS)]
    if not inside and (path / "results.json").is_file():
        return [path]
    return sorted(inside, key=_place)


def _place(folder: Path) -> tuple[int, str, str]:
    manifest = _json(folder / "manifest.json", [])
    stage = str(manifest.get("stage", folder.name))
    started = str(manifest.get("started", ""))
    return ORDER.index(stage) if stage in ORDER else len(ORDER), started, folder.name


def _read_run(folder: Path, stage: dict[str, Any]) -> Run:
    problems: list[str] = []
    manifest = _json(folder / "manifest.json", problems)
    if not manifest and not problems:
        problems.append("manifest.json is missing: what this stage was given is not known")
    run = Run(
        path=folder.resolve(),
        name=folder.resolve().name,
        stage=str(manifest.get("stage", folder.name)),
        manifest=manifest,
        recipe=_text(folder / "recipe.yaml", problems),
        metrics=_jsonl(folder / "metrics.jsonl", problems),
        samples=_jsonl(folder / "samples.jsonl", problems),
        results=_json(folder / "results.json", problems),
        examples=_jsonl(folder / "examples.jsonl", problems),
        problems=problems,
    )
    written = manifest.get("metrics_lines")
    if isinstance(written, int) and len(run.metrics) < written:
        problems.append(f"metrics.jsonl has {len(run.metrics)} of the {written} lines that the run wrote")
    run.seconds = _seconds(stage, manifest)
    run.status = str(stage.get("status") or manifest.get("status") or "unknown")
    if run.makes == "results" and not run.results and run.status == "finished":
        problems.append("results.json is missing")
    return run


def _never_started(path: Path, pipeline: dict[str, dict[str, Any]], stages: list[Run]) -> list[Run]:
    """Return the pipeline's stages without a run directory: commands, and stages that failed or did not start."""
    known = {run.name for run in stages}
    return [
        Run(path / name, name, str(stage.get("stage", name)), seconds=_seconds(stage, {}),
            status=str(stage.get("status", "unknown")))
        for name, stage in pipeline.items()
        if name not in known
    ]  # fmt: skip


def _stages(pipeline: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The stages of pipeline.json by name, in their order."""
    stages = pipeline.get("stages", {})
    if not isinstance(stages, dict):
        return {}
    return {str(name): stage for name, stage in stages.items() if isinstance(stage, dict)}


def _seconds(stage: dict[str, Any], manifest: dict[str, Any]) -> float | None:
    seconds = stage.get("seconds")
    if isinstance(seconds, int | float) and math.isfinite(seconds):
        return float(seconds)
    try:
        begin = datetime.datetime.fromisoformat(str(manifest["started"]))
        end = datetime.datetime.fromisoformat(str(manifest["finished"]))
        return (end - begin).total_seconds()
    except (KeyError, ValueError, TypeError):
        return None


def _text(file: Path, problems: list[str]) -> str:
    if not file.is_file():
        return ""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        problems.append(f"{file.name} cannot be read ({error.strerror})")
        return ""


def _json(file: Path, problems: list[str]) -> dict[str, Any]:
    text = _text(file, problems)
    if not text:
        return {}
    try:
        value = parse(text, OURS)
    except JsonError as error:
        problems.append(f"{file.name} is damaged: {error}")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{file.name} is damaged: a {type(value).__name__} where an object was expected")
        return {}
    return value


def _jsonl(file: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file. A last line cut off by a kill is ignored; other bad lines are reported."""
    rows: list[dict[str, Any]] = []
    bad = []
    text = _text(file, problems)
    cut_off = text.count("\n") + 1  # the number of a last line without its end
    for number, line in split(text.encode()):
        try:
            row = parse(line, OURS)
        except JsonError:
            if number != cut_off:
                bad.append(number)
            continue
        if isinstance(row, dict):
            rows.append(row)
        else:
            bad.append(number)
    if bad:
        problems.append(f"{file.name}: {len(bad)} damaged lines left out, the first is line {bad[0]}")
    return rows
