"""The run directory: a stage's script opens and fills it; it is readable without this project.

recipe.yaml      as resolved           manifest.json   inputs, versions and results
metrics.jsonl    one object per log    samples.jsonl   prompts and answers at fixed steps
checkpoint-*/    resumable             README.md       model card
"""

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pydantic
import yaml

from alignment.config.launched import BATCH_KEYS, Launch, is_sharded
from alignment.config.schema import Mark, Recipe, keys_marked
from alignment.errors import AlignmentError, DataError, LineageError, ModelError, named_inputs
from alignment.json_lines import split
from alignment.manifest import MANIFEST, how_anew, read_manifest
from alignment.meter import say
from alignment.run import signals, tracking
from alignment.run.card import model_card
from alignment.run.checkpoints import checkpoints, latest_whole, new_identifier, remove, settle
from alignment.run.closing import closing
from alignment.run.differences import differences
from alignment.run.files import (
    append_jsonl,
    is_partial,
    naming_the_disk,
    read_json_object,
    remove_partial,
    write_atomic,
    write_json,
)
from alignment.run.folder_lock import hold
from alignment.run.last_resort import LOGS, keep_tracebacks_in
from alignment.run.tracking import Tracker
from alignment.secrecy import hidden_words

PEOPLE = "people.jsonl"  # people's rankings, which no command may delete
THUMBS = "thumbs.jsonl"  # people's labels of single answers, likewise
MOST_SHOWN = 8  # differences of two recipes in a message
DDP_TIMEOUT = 1800  # seconds that a process waits for the others; transformers' default of the key of that name
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes", "deepspeed")
# Keys that may change when a run is resumed: output, tracking, speed and limits.
NOT_IDENTITY = keys_marked(Mark.FREE)
INPUTS = ("lineage", "scorers", "watch_scorers", "data")  # fields of the manifest that hold hashes of what a run reads


class RunDirectory:
    """One stage's output folder. Only the main process writes; the others see the same path and checkpoint."""

    def __init__(self, path: Path, recipe: Recipe, launch: Launch, main_process: bool) -> None:
        self.path = path
        self.recipe = recipe
        self.launch = launch
        self.main_process = main_process
        self.checkpoint: str | None = None  # the latest complete checkpoint of the same recipe
        self.identifier: str | None = None  # of the run, which its checkpoints carry; only in the main process
        self.tracker: Tracker | None = None
        self.expendable: Callable[[Path], Collection[str]] | None = None
        self.is_new = False  # whether this process made the folder

    @classmethod
    def open(cls, recipe: Recipe, *, expendable: Callable[[Path], Collection[str]] | None = None) -> "RunDirectory":
        """Create or reopen `recipe.output_dir`.

        Args:
            expendable: returns the names of files without work in them, which do not protect the folder.

        Raises: AlignmentError if the folder has a finished run or a run of another recipe and `overwrite` is false, or
            if it is not a run.
        """
        launch = Launch.of(recipe)
        launch.require_own_store()
        run = cls(Path(recipe.output_dir), recipe, launch, int(os.environ.get("RANK", "0")) == 0)
        run.expendable = expendable
        if run.main_process:
            run._begin()
            keep_tracebacks_in(run.path)
            run._track()
        if launch.processes > 1:
            import torch
            from accelerate import PartialState

            on_gpu = torch.cuda.is_available()
            here: dict[str, Any] = {} if on_gpu else {"backend": "gloo"}
            # the Trainer's `ddp_timeout` comes too late: the process group exists already
            timeout = datetime.timedelta(seconds=float(recipe.library.get("ddp_timeout", DDP_TIMEOUT)))
            PartialState(cpu=not on_gpu and not is_sharded(), timeout=timeout, **here).wait_for_everyone()
        keep_tracebacks_in(run.path)
        run.checkpoint = run._checkpoint()
        if launch.processes > 1:
            run._require_same_checkpoint()
        if run.checkpoint:
            say(f"{run.path}: resumes from {Path(run.checkpoint).name}")
        return run

    @property
    def metrics_path(self) -> Path:
        """The file of the logs, one JSON object per line."""
        return self.path / "metrics.jsonl"

    def record(self, **fields: Any) -> None:
        """Merge fields into manifest.json.

        Raises: AlignmentError if the run resumes from a checkpoint and its inputs have changed.
        """
        if self.main_process:
            manifest = read_manifest(self.path)
            if self.checkpoint:
                self._require_same_inputs(manifest, fields)
            write_json(self.path / MANIFEST, {**manifest, **fields})

    def _require_same_inputs(self, manifest: dict[str, Any], fields: dict[str, Any]) -> None:
        changed: list[str] = []
        for name in INPUTS:
            before, now = manifest.get(name), fields.get(name)
            if before is None or now is None:
                continue
            if name == "lineage":  # an older release may have recorded less of it
                before, now = ({key: each[key] for key in before.keys() & now.keys()} for each in (before, now))
            changed += differences(before, now, path=name)
        if changed:
            raise AlignmentError(
                f"output_dir {self.path} holds an interrupted run whose inputs have changed since "
                f"({_listed(changed)}): the rest would train on other inputs. Restore them to resume, or "
                f"{how_anew(self.path)}."
            )

    @contextmanager
    def gone_if_refused(self) -> Iterator[None]:
        """End with 2 where the block refuses an input, and delete a folder that `open` has made.

        A tracker writes into the folder, so that of a tracked run stays.
        """
        try:
            with named_inputs(DataError, LineageError, ModelError):
                yield
        except AlignmentError:
            if self.is_new and self.tracker is None:
                shutil.rmtree(self.path, ignore_errors=True)
            raise

    def samples(self, rows: list[dict[str, Any]], step: int) -> None:
        """Append prompts and answers to samples.jsonl."""
        if self.main_process:
            for row in rows:
                append_jsonl(self.path / "samples.jsonl", {"step": step, **row})
            self.table("samples", rows, step)

    def table(self, name: str, rows: list[dict[str, Any]], step: int | None = None) -> None:
        """Send rows to the tracker, if there is one."""
        if self.tracker is not None:
            self.tracker.table(name, rows, step)

    def finish(self, **results: Any) -> None:
        """Write the results, the model card and the status `finished`."""
        more: dict[str, Any] = {}
        if self.main_process and self.metrics_path.exists():
            more["metrics_lines"] = sum(1 for _ in split(self.metrics_path.read_bytes()))
        self.record(results=results, finished=_now(), **more)
        self.write_card()
        signals.defer()  # a finished job must not be queued again
        self.record(status="finished")
        if self.tracker is not None:
            self.tracker.finish(read_manifest(self.path))
        for line in closing(self.recipe, results):
            say(line)

    def write_card(self) -> None:
        """Write README.md of what manifest.json holds now."""
        if self.main_process:
            adapter = read_json_object(self.path / "adapter_config.json")
            write_atomic(self.path / "README.md", model_card(self.recipe, read_manifest(self.path), adapter))

    def _track(self) -> None:
        """Start or resume the run at W&B, if the recipe reports to it."""
        run_id = read_manifest(self.path).get("wandb_run_id")
        if run_id:
            self.tracker, known = tracking.start(self.path, self.recipe, resolved_recipe(self.recipe), run_id)
            self.record(**known)

    @property
    def _goes_on(self) -> bool:
        """Whether the run can resume: with `save_only_model`, checkpoints have no optimizer state."""
        return not self.recipe.library.get("save_only_model")

    @property
    def _with_best(self) -> bool:
        return bool(self.recipe.library.get("load_best_model_at_end"))

    def _checkpoint(self) -> str | None:
        """Return the checkpoint to resume from; the main process has checked them before."""
        checkpoint = latest_whole(self.path, with_best=self._with_best) if self._goes_on else None
        return str(checkpoint) if checkpoint else None

    def _require_same_checkpoint(self) -> None:
        from accelerate.utils import gather_object

        found = gather_object([self.checkpoint])
        if len(set(found)) > 1:
            raise AlignmentError(
                f"output_dir {self.path}: the processes see different checkpoints ({', '.join(map(str, found))}); "
                "it must be in a folder that all of them share."
            )

    def _begin(self) -> None:
        if not self.path.exists():
            self.is_new = True
            with naming_the_disk(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
        hold(self.path, self)
        manifest = self._existing()
        self.identifier = str(manifest.get("identifier") or new_identifier())
        self._clear_what_a_kill_left()
        resolved = resolved_recipe(self.recipe)
        write_json(  # first, because this file identifies the folder of a run
            self.path / MANIFEST,
            {
                **manifest,
                "identifier": self.identifier,
                "stage": self.recipe.stage,
                "status": "running",
                "recipe": resolved,
                "recipe_sha256": recipe_digest(resolved),
                "seed": self.recipe.seed,
                "launch": asdict(self.launch),
                "command": hidden_words(sys.argv),
                "started": manifest.get("started", _now()),
                "versions": versions(),
                **tracked_run(self.recipe, manifest),
            },
        )
        write_atomic(self.path / "recipe.yaml", yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))

    def _clear_what_a_kill_left(self) -> None:
        """Remove temporary files of a killed start, and checkpoints that cannot be resumed from."""
        remove_partial(self.path)
        if self._goes_on:
            settle(self.path, self.identifier, with_best=self._with_best, say=say)
            return
        for checkpoint in checkpoints(self.path):
            say(f"{checkpoint}: removed, and the run starts again: save_only_model saves no optimizer state")
            remove(checkpoint)

    def _existing(self) -> dict[str, Any]:
        """Return the manifest of the interrupted run to resume, or {} for a new run."""
        if not self.path.exists() or (self.path.is_dir() and all(map(is_partial, self.path.iterdir()))):
            return {}
        if not self.path.is_dir():
            raise AlignmentError(f"output_dir {self.path} is a file; name a folder.")
        if not (self.path / MANIFEST).is_file():
            raise AlignmentError(
                f"output_dir {self.path} is not empty and holds no {MANIFEST}, so it is not a run of this project; "
                "name another folder."
            )
        if self.recipe.overwrite:
            for name, what in ((PEOPLE, "rankings"), (THUMBS, "labels")):
                if (self.path / name).exists():
                    raise AlignmentError(
                        f"output_dir {self.path} holds {name}, people's {what} of this run's answers, and overwriting "
                        "would delete it. Move it to another folder, or name another output_dir."
                    )
            self._clear()
            return {}
        manifest = read_manifest(self.path)
        if manifest.get("status") == "finished":
            raise AlignmentError(f"output_dir {self.path} holds a finished run; {how_anew(self.path, 'it ')}.")
        changed = self._changed(manifest)
        if not self._holds_work():
            return {} if changed else manifest
        if "recipe" not in manifest:
            raise AlignmentError(
                f"output_dir {self.path} holds the rest of a run whose overwriting was interrupted; pass "
                "--overwrite true to delete it and start again."
            )
        if changed:
            raise AlignmentError(
                f"output_dir {self.path} holds an interrupted run of another recipe ({_listed(changed)}); restore "
                f"the recipe to resume it, or {how_anew(self.path)}."
            )
        reason = None
        if self.recipe.STAGE.trains:
            reason = self.launch.why_it_cannot_follow(*self._before(manifest), resolved_recipe(self.recipe))
        if reason:
            raise AlignmentError(
                f"output_dir {self.path} holds an interrupted run that cannot resume with this launch: {reason}. "
                f"Launch it as before, or {how_anew(self.path)}."
            )
        return manifest

    def _clear(self) -> None:
        """Delete the run. An unfinished manifest is deleted last, so that after a kill it can be overwritten again."""
        write_json(self.path / MANIFEST, {"stage": self.recipe.stage, "status": "running"})
        for entry in self.path.iterdir():
            if entry.name != MANIFEST:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def _changed(self, manifest: dict[str, Any]) -> list[str]:
        """Return the differences from the interrupted run's recipe that affect the result."""
        launch, before = self._before(manifest)
        before = recipe_as_now(type(self.recipe), before)
        now = resolved_recipe(self.recipe)
        free = keys_marked(Mark.FREE, Mark.LATE)
        if not self.recipe.STAGE.is_online and launch.rows(before) == self.launch.rows(now):
            free |= BATCH_KEYS  # the same rows in the same steps
        return list(differences(before, now, free=free))

    def _before(self, manifest: dict[str, Any]) -> tuple[Launch, dict[str, Any]]:
        """Return the launch and the recipe of the interrupted run."""
        return Launch(**manifest.get("launch", asdict(self.launch))), manifest.get("recipe", {})

    def _holds_work(self) -> bool:
        """Whether the folder has results of work: a run that failed at once leaves only its description."""
        describing = {MANIFEST, "recipe.yaml", "README.md", self.metrics_path.name, "wandb"}
        describing |= set(self.expendable(self.path) if self.expendable else ())
        return any(entry.name not in describing and not LOGS.fullmatch(entry.name) for entry in self.path.iterdir())


def resolved_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return every key with its value, the defaults of ours included, and the trainer's keys as given."""
    return {**recipe.model_dump(mode="json"), **recipe.library}


def recipe_as_now(cls: type[Recipe], resolved: dict[str, Any]) -> dict[str, Any]:
    """Return a resolved recipe, possibly of an earlier version, with the keys and defaults of this version.

    A recipe that this version refuses is returned unchanged.
    """
    own = {key: value for key, value in resolved.items() if key in cls.model_fields}
    library = {key: value for key, value in resolved.items() if key not in cls.model_fields}
    try:
        return resolved_recipe(cls(**own, library=library))
    except (pydantic.ValidationError, TypeError):
        return resolved


def recipe_digest(resolved: dict[str, Any]) -> str:
    """Return the SHA-256 of the keys that affect the result."""
    identity = {key: value for key, value in resolved.items() if key not in NOT_IDENTITY}
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that may affect the result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def tracked_run(recipe: Recipe, manifest: dict[str, Any]) -> dict[str, str]:
    """Return the id of the run at W&B, if it is tracked there; an interrupted run keeps its id.

    A new run uses the id that the user set in the environment.
    """
    trackers = [recipe.report_to] if isinstance(recipe.report_to, str) else recipe.report_to
    if not {"wandb", "all"} & set(trackers):
        return {}
    return {"wandb_run_id": str(manifest.get("wandb_run_id") or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4))}


def _listed(changed: list[str]) -> str:
    more = f"; and {len(changed) - MOST_SHOWN} more" if len(changed) > MOST_SHOWN else ""
    return "; ".join(changed[:MOST_SHOWN]) + more


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
