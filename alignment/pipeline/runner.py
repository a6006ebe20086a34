"""`alignment run`: runs stages in order, and skips finished ones until something that they depend on changes."""

import datetime
import fcntl
import itertools
import math
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from alignment.config.pipelines import Pipeline, Stage, load_pipeline
from alignment.config.schema import EvaluateRecipe
from alignment.config.secrets import refuse_keys_in_words
from alignment.errors import AlignmentError, RecipeError
from alignment.manifest import MANIFEST, read_manifest, stores_with_calls
from alignment.meter import duration
from alignment.pipeline.require import check_win_rates
from alignment.run.files import naming_the_disk, read_json_object, remove_partial, write_json
from alignment.run.inputs import dependencies, is_finished
from alignment.run.last_resort import keep_tracebacks_in
from alignment.run.processes import INTERRUPTED, module_command, run_logged, tail
from alignment.run.progress import Progress, summary
from alignment.run.signals import PREEMPTED, Terminated, ending_on_signals
from alignment.train.trial import require_accepted

STATE = "pipeline.json"
TAIL_LINES = 20
ACCURACY = "reward_accuracy"
PLAIN_WIDTH = 120  # columns of tables without a terminal

Action = Literal["skip", "resume", "run"]


def run_pipeline(
    path: str,
    *,
    start: str | None = None,
    only: str | None = None,
    output_dir: str | None = None,
    seed: int | None = None,
    launch: str | None = None,
    console: Console | None = None,
) -> int:
    """Run the missing and stale stages of a pipeline.

    Args:
        path: pipeline.yaml. start: run this stage and all later ones, even if finished. only: run this stage alone.
        output_dir: in place of the pipeline's own folder.
        seed: of every stage, in place of the recipes' seeds.
        launch: the command that starts training stages, such as `accelerate launch`.

    Returns: 0, or the exit code of the stage that failed.
    Raises: RecipeError, before anything is run or written.
    """
    refuse_keys_in_words(_launcher(launch))
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    pipeline = load_pipeline(path, output_dir, seed)
    stages = pipeline.selected(path, start, only)
    require_accepted([stage.recipe for stage in stages if stage.recipe is not None])
    with naming_the_disk(Path(pipeline.output_dir)):
        Path(pipeline.output_dir).mkdir(parents=True, exist_ok=True)
    keep_tracebacks_in(Path(pipeline.output_dir))
    with _alone(Path(pipeline.output_dir)), ending_on_signals():
        remove_partial(Path(pipeline.output_dir))
        runner = _Runner(pipeline, launch, console)
        try:
            for stage in stages:
                code = runner.stage(stage, forced=start is not None or only is not None)
                if code:
                    return code
                runner.require(stage)
        except Terminated as told:
            console.print(f"{told}", highlight=False, markup=False)
            return int(told.code or PREEMPTED)
        runner.conclude()
    return 0


def _launcher(launch: str | None) -> list[str]:
    try:
        words = shlex.split(launch or "")
    except ValueError as error:
        raise RecipeError([f"--launch: is no command ({error})"]) from None
    if launch is not None and not words:
        raise RecipeError(["--launch: is empty; give a command such as 'accelerate launch --num_processes 2'"])
    return words


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock the folder against a second `alignment run`; the lock ends with the process."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlignmentError(
                f"{folder}: another `alignment run` uses this folder; wait for it, or end it."
            ) from None
        yield


class _Runner:
    """Runs stages and records them in pipeline.json."""

    def __init__(self, pipeline: Pipeline, launch: str | None, console: Console) -> None:
        self.pipeline, self.launch, self.console = pipeline, launch, console
        self.folder = Path(pipeline.output_dir)
        self.came: dict[str, str] = {}  # result of each stage in this run
        self.records: dict[str, dict[str, Any]] = self._read()

    def stage(self, stage: Stage, *, forced: bool) -> int:
        """Bring one stage up to date; return its exit code."""
        self._require_inputs(stage)
        before = dependencies(stage)
        action, reason = self._decide(stage, before, forced)
        if action == "skip":
            self.came[stage.name] = "unchanged"
            if self.records.get(stage.name, {}).get("status") != "finished":  # by hand, or before a kill
                self._record(stage, dependencies=before, status="finished", seconds=_seconds_by_hand(stage))
            self.console.print(f"{stage.name}: unchanged, skipped", highlight=False, markup=False)
            return 0
        if reason:
            self.console.print(f"{stage.name}: {reason}", soft_wrap=True, highlight=False, markup=False)
        known = self.records.get(stage.name, {}) if action == "resume" else {}
        spent = known.get("seconds", 0.0)
        account = {"dependencies": before, "replaces": known.get("replaces", _identity(_manifest(stage)))}
        self._record(stage, **account, status="running", seconds=spent)
        log = self.folder / f"{stage.name}.log"
        if action == "run":
            log.unlink(missing_ok=True)
            self._keep_calls(stage)
        folder = Path(stage.outputs[0]) if stage.recipe else None
        begun, code = time.monotonic(), INTERRUPTED
        try:
            with Progress(self.console, stage.name, folder, log) as progress:
                group = {"WANDB_RUN_GROUP": self.folder.name}
                code = run_logged(self._command(stage, action), log, progress.tick, group)
        finally:
            seconds = round(spent + time.monotonic() - begun, 2)
            if code == 0 and not is_finished(stage):
                code = 1
                with log.open("a", encoding="utf-8") as file:
                    file.write(
                        f"the stage ended well but left no {' or '.join(stage.outputs)} of this recipe; was the recipe "
                        "changed or the folder removed meanwhile? Run the pipeline again.\n"
                    )
            status = {0: "finished", INTERRUPTED: "interrupted", PREEMPTED: "interrupted"}.get(code, "failed")
            self._record(stage, **account, status=status, seconds=seconds)
        self.came[stage.name] = "resumed, done" if action == "resume" else "done"
        if code:
            self._tell_failure(stage, code, log)
        else:
            self.console.print(f"{stage.name}: finished in {duration(seconds)}", highlight=False, markup=False)
        return code

    def require(self, stage: Stage) -> None:
        """Check what the pipeline requires of an evaluation, and print the figures.

        Raises: GateError if it does not hold.
        """
        if stage.require is not None and isinstance(stage.recipe, EvaluateRecipe):
            for line in check_win_rates(stage.name, stage.recipe, stage.require.win_rate):
                self.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def conclude(self) -> None:
        """Write results.json and the report, and print the tables."""
        rows = []
        for stage in self.pipeline.stages:
            record = self.records.get(stage.name, {})
            rows.append((stage.name, record.get("seconds", 0.0), self.came.get(stage.name, record.get("status", "–"))))
        self.console.print(summary(rows))
        results = self._results()
        write_json(self.folder / "results.json", results)
        if "win_rate" in results:
            from alignment.evaluate.table import table

            self.console.print(table(results))
        self.console.print(f"Results: {self.folder / 'results.json'}", soft_wrap=True, highlight=False, markup=False)
        runs = [Path(stage.outputs[0]) for stage in self.pipeline.stages if stage.recipe]
        runs = [run for run in runs if read_manifest(run).get("status") == "finished"]
        if runs:
            from alignment.report import build

            outside = [run for run in runs if self.folder not in run.parents]
            page = build([self.folder, *outside] if len(outside) < len(runs) else outside, self.folder / "report.html")
            self.console.print(f"Report: {page}", soft_wrap=True, highlight=False, markup=False)

    def _results(self) -> dict[str, Any]:
        """Merge the last evaluation's results, the accuracy of the reward model in it, and the seconds by stage."""
        results: dict[str, Any] = {}
        accuracies: dict[str, float] = {}  # by the reward model's folder
        scorer: str | list[str] | None = None
        for stage in self.pipeline.stages:
            if stage.recipe is None:
                continue
            if stage.recipe.STAGE.makes == "reward_model":
                found = read_manifest(stage.outputs[0]).get("results", {})
                accuracies |= {os.path.normpath(stage.outputs[0]): found[key] for key in found if key == ACCURACY}
            elif stage.recipe.STAGE.makes == "results":
                file = Path(stage.outputs[0]) / "results.json"
                results = read_json_object(file)
                scorer = getattr(stage.recipe, "reward_model_path", None)
        if accuracies:
            named = scorer if isinstance(scorer, str) else ""
            chosen = accuracies.get(os.path.normpath(named), next(iter(accuracies.values())))
            results.setdefault(ACCURACY, chosen)
        names = [stage.name for stage in self.pipeline.stages]
        results["seconds"] = {name: self.records[name]["seconds"] for name in names if name in self.records}
        return results

    def _decide(self, stage: Stage, now: dict[str, str], forced: bool) -> tuple[Action, str]:
        record = self.records.get(stage.name)
        changed = _changes(record["dependencies"], now) if record else ""
        begun = _has_begun(record, _manifest(stage))
        finished = is_finished(stage) and begun
        if stage.recipe is None:  # a command cut short may have left part of its output
            finished = finished and record is not None and record["status"] == "finished"
        if finished and not forced and not changed and (record or self._adopts(stage)):
            return "skip", ""
        if _manifest(stage).get("status") == "running" and begun and record and not changed:
            return "resume", "was interrupted, resumes"
        if forced or not record:
            return "run", ""
        return "run", f"{changed}, runs again" if changed else f"was {record['status']}, runs again"

    def _adopts(self, stage: Stage) -> bool:
        """Whether a stage that was run by hand, without a record in pipeline.json, is newer than all local inputs."""
        done = (Path(stage.outputs[0]) / MANIFEST).stat().st_mtime
        inputs = [Path(name) for name in dependencies(stage)]
        return all(_newest(path) <= done for path in inputs if path.exists())

    def _require_inputs(self, stage: Stage) -> None:
        """Refuse a stage if an earlier stage has not written its inputs yet."""
        for other in self.pipeline.stages:
            if other.name == stage.name:
                return
            for output in other.outputs:
                reads = [name for name in dependencies(stage) if Path(output) in (Path(name), *Path(name).parents)]
                if reads and not os.path.exists(reads[0]):
                    raise AlignmentError(
                        f"stage {stage.name} reads {reads[0]}, which is not there; stage {other.name} writes it: "
                        f"run that first, for example with `--from {other.name}`."
                    )

    def _keep_calls(self, stage: Stage) -> None:
        """Move judges' answers, which may have cost money, out of a folder that the stage will overwrite."""
        if stage.recipe is None:
            return
        folder = Path(stage.outputs[0])
        stores = stores_with_calls(folder)
        if not stores:
            return
        names = (folder.with_name(f"{folder.name}.calls-{number}") for number in itertools.count(1))
        aside = next(path for path in names if not path.exists())
        with naming_the_disk(aside):
            aside.mkdir()
            for store in stores:
                for name in (f"{store.name}-wal", f"{store.name}-shm", store.name):  # the store last
                    if (folder / name).exists():
                        os.replace(folder / name, aside / name)
        self.console.print(
            f"{stage.name}: judges' answers of the run before are kept in {aside}", soft_wrap=True, highlight=False,
            markup=False,
        )  # fmt: skip

    def _command(self, stage: Stage, action: Action) -> list[str]:
        arguments = list(stage.arguments)
        if stage.recipe is None:
            return module_command(arguments)
        if action == "run" and (Path(stage.outputs[0]) / MANIFEST).is_file():
            arguments += ["--overwrite", "true"]
        if stage.recipe.STAGE.one_process:
            return module_command(arguments)
        return module_command(arguments, launch=self.launch, accelerate=self.pipeline.accelerate_config)

    def _tell_failure(self, stage: Stage, code: int, log: Path) -> None:
        sys.stdout.flush()
        error = Console(stderr=True, highlight=False, markup=False)
        error.print(f"stage {stage.name} failed with exit code {code}; the end of {log}:", soft_wrap=True)
        for line in tail(log, TAIL_LINES):
            error.print(f"  {line}", soft_wrap=True)

    def _record(self, stage: Stage, **fields: Any) -> None:
        self.records[stage.name] = fields
        waiting = {"status": "not started"}
        stages = {each.name: self.records.get(each.name, waiting) for each in self.pipeline.stages}
        write_json(self.folder / STATE, {"name": self.pipeline.name, "stages": stages})

    def _read(self) -> dict[str, dict[str, Any]]:
        file = self.folder / STATE
        remedy = "delete it and run again; finished stages newer than what they read are kept."
        stages = read_json_object(file, remedy).get("stages", {})
        found = [record for record in stages.values() if "dependencies" in record] if _are_records(stages) else [None]
        if not all(record is not None and _is_record(record) for record in found):
            raise AlignmentError(f"{file}: damaged; {remedy} (Its stages are not as a run writes them.)")
        return {name: record for name, record in stages.items() if "dependencies" in record}


def _manifest(stage: Stage) -> dict[str, Any]:
    return read_manifest(stage.outputs[0]) if stage.recipe else {}


def _identity(manifest: dict[str, Any]) -> str | None:
    """Return an identifier of the run in a folder, which differs for a run that replaces it."""
    found = manifest.get("identifier") or manifest.get("started")
    return str(found) if found else None


def _has_begun(record: dict[str, Any] | None, manifest: dict[str, Any]) -> bool:
    """Whether the folder has the output of the recorded start.

    If a stage is killed, or refuses its data, before it clears its folder, the folder still has the run that it should
    replace. That run has other inputs: it is neither finished nor to be resumed.
    """
    if record is None or record["status"] == "finished" or "replaces" not in record:
        return True
    return record["replaces"] is None or record["replaces"] != _identity(manifest)


def _changes(before: dict[str, str], now: dict[str, str]) -> str:
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return f"{', '.join(changed[:3])}{' and more' if len(changed) > 3 else ''} changed" if changed else ""


def _are_records(stages: Any) -> bool:
    return isinstance(stages, dict) and all(isinstance(record, dict) for record in stages.values())


def _is_record(record: dict[str, Any]) -> bool:
    """Whether the record of a started stage has the format of `_record`."""
    dependencies, seconds = record["dependencies"], record.get("seconds", 0.0)
    hashes = isinstance(dependencies, dict) and all(isinstance(hash_, str) for hash_ in dependencies.values())
    timed = isinstance(seconds, int | float) and math.isfinite(seconds)
    return hashes and timed and isinstance(record.get("status"), str)


def _seconds_by_hand(stage: Stage) -> float:
    """Return the seconds of a stage that was run by hand; 0.0 if its manifest has no times."""
    manifest = read_manifest(stage.outputs[0])
    try:
        begun, ended = (datetime.datetime.fromisoformat(manifest[key]) for key in ("started", "finished"))
        return (ended - begun).total_seconds()
    except (KeyError, ValueError, TypeError):
        return 0.0


def _newest(path: Path) -> float:
    """Modification time of a file, of a run's end, or of a folder's newest file, in seconds."""
    if (path / MANIFEST).is_file():
        return (path / MANIFEST).stat().st_mtime
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return max((file.stat().st_mtime for file in files), default=0.0)
