"""Weights & Biases: a run for each stage, with the numbers of metrics.jsonl, tables and artifacts.

A failure of W&B never ends a run: a message reports it, and metrics.jsonl has the numbers.
"""

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from alignment.config.input_paths import input_paths
from alignment.config.schema import Recipe
from alignment.manifest import MANIFEST, read_manifest
from alignment.meter import say
from alignment.secrecy import without_keys

PROJECT = "alignment-stack"
INIT_SECONDS, FINISH_SECONDS, UPLOAD_SECONDS = 30.0, 60.0, 3600.0  # W&B's own limits; the last for uploads of weights
ANSWER_SECONDS = 30.0  # for requests without a limit of W&B
TABLE_ROWS = 1_000
SINGLE = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos")
TYPES = {
    "labels": "dataset",
    "data": "dataset",
    "results": "evaluation",
}  # artifact types by output of a stage; the default is model
MADE = ("README.md", "labels.jsonl", "revisions.jsonl", "results.json", "answers.jsonl")
WEIGHTS = ("*.safetensors", "*.json", "*.jinja", "*.txt")  # files of a loadable model
NOT_WEIGHTS = frozenset({"manifest.json", "results.json"})
_live: list["Tracker"] = []


class Tracker:
    """The W&B run of one stage."""

    def __init__(self, live: Any, path: Path, recipe: Any) -> None:
        """Wrap what `wandb.init` returned."""
        self.live, self.path, self.recipe = live, path, recipe
        self.first = int(live.step or 0)  # an interrupted start has sent the earlier steps
        self.dead = False
        _live.append(self)

    def log(self, row: dict[str, Any]) -> None:
        """Send a line of metrics.jsonl under the names that transformers gives its metrics."""
        step = row.get("step", 0)
        if step < self.first:
            return
        told = {key: value for key, value in row.items() if key != "step"}
        self._try(lambda: self.live.log({**_named(told), "train/global_step": step}, step=step))
        single = {key: told[key] for key in SINGLE if key in told}
        if single:
            self._try(lambda: self.live.summary.update(single))

    def table(self, name: str, rows: Sequence[dict[str, Any]], step: int | None = None) -> None:
        """Send rows, all with the keys of the first, as a table; nested mappings become columns `outer/inner`."""
        flat = [_flat(row) for row in rows[:TABLE_ROWS]]
        if not flat or (step is not None and step < self.first):
            return
        columns = list(flat[0])
        lead = [] if step is None else ["step"]

        def send() -> None:
            import wandb

            data = [([] if step is None else [step]) + [row.get(key) for key in columns] for row in flat]
            told = {name: wandb.Table(columns=[*lead, *columns], data=data)}
            self.live.log(told if step is None else {**told, "train/global_step": step}, step=step)

        self._try(send)

    def use(self, inputs: dict[str, str]) -> None:
        """Record the input artifacts of this run; offline, only the config lists them."""
        if self.live.offline:
            return
        for name in sorted(set(inputs.values())):
            self._try(partial(_within, ANSWER_SECONDS, partial(self.live.use_artifact, name)))

    def finish(self, manifest: dict[str, Any]) -> None:
        """Send the results and the output artifact, and end the run."""
        stage, results = self.recipe.stage, {**manifest.get("results", {})}
        results.pop("details", None)  # repeats the results in more detail
        numbers = {f"{stage}/{key}": value for key, value in _flat(results).items() if isinstance(value, int | float)}
        if not self.recipe.STAGE.trains:
            self._try(lambda: self.live.log(numbers))
        self._try(lambda: self.live.summary.update(numbers))
        self._try(lambda: self._made(manifest))
        self.end(0)

    def end(self, code: int) -> None:
        """End the run with an exit code."""
        if self in _live:
            _live.remove(self)
            self._try(lambda: self.live.finish(exit_code=code))

    def _made(self, manifest: dict[str, Any]) -> None:
        import wandb

        facts = {key: manifest[key] for key in ("results", "lineage", "versions") if key in manifest}
        name = manifest["wandb"]["artifact"].rpartition("/")[2].partition(":")[0]
        artifact = wandb.Artifact(name, type=TYPES.get(self.recipe.STAGE.makes, "model"), metadata=_plain(facts))
        files = {self.path / file for file in MADE}
        if self.recipe.log_model:
            files |= {file for pattern in WEIGHTS for file in self.path.glob(pattern) if file.name not in NOT_WEIGHTS}
        for file in sorted(files):
            if file.is_file():
                artifact.add_file(str(file))
        self.live.log_artifact(artifact, aliases=["latest", self.live.id])

    def _try(self, send: Callable[[], Any]) -> None:
        if self.dead:
            return
        try:
            send()
        except Exception as error:
            self.dead = True
            say(
                f"W&B: {_first_line(error)}; nothing more is sent, the run continues, and metrics.jsonl has its numbers"
            )


def start(
    path: Path, recipe: Any, resolved: dict[str, Any], run_id: str
) -> tuple["Tracker | None", dict[str, dict[str, str]]]:
    """Start or resume the stage's run at W&B.

    Returns: the tracker, None without W&B; and the fields for the manifest.
    """
    asked = [recipe.report_to] if isinstance(recipe.report_to, str) else recipe.report_to
    mode = os.environ.get("WANDB_MODE", "online")
    if mode == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes"):
        return None, {}
    try:
        import wandb

        if mode in ("online", "shared") and not has_key():
            if "wandb" in asked:
                keep = "`wandb login`, WANDB_API_KEY or WANDB_MODE=offline changes that"
                say(f"W&B: no key is set, so the run is not tracked there; metrics.jsonl has its numbers. {keep}.")
            return None, {}
        live, project, group = _begin(wandb, path, recipe, resolved, run_id)
    except Exception as error:
        say(f"W&B: {_first_line(error)}; the run is not tracked there, and metrics.jsonl has its numbers")
        return None, {}
    tracker = Tracker(live, path, recipe)
    inputs = made_from(recipe)
    tracker._try(lambda: live.config.update({"inputs": inputs}, allow_val_change=True))
    tracker.use(inputs)
    place = "/".join(part for part in (live.entity, project) if part)
    name = re.sub(r"[^\w.-]+", "-", f"{group}-{path.name}")
    return tracker, {"wandb": {"project": place, "artifact": f"{place}/{name}:{run_id}"}}


def _begin(wandb: Any, path: Path, recipe: Any, resolved: dict[str, Any], run_id: str) -> tuple[Any, str, str]:
    project = project_of(recipe)
    group = os.environ.get("WANDB_RUN_GROUP") or path.absolute().parent.name
    seconds = UPLOAD_SECONDS if recipe.log_model else FINISH_SECONDS
    patience = float(os.environ.get("WANDB_INIT_TIMEOUT", INIT_SECONDS))
    settings = {"init_timeout": patience, "finish_timeout": seconds, "reinit": "create_new"}
    where = Path(os.environ.get("WANDB_DIR") or path)
    where.mkdir(parents=True, exist_ok=True)
    how = {
        "project": project,
        "group": group,
        "job_type": recipe.stage,
        "name": recipe.run_name or str(path),
        "id": run_id,
        "resume": "allow",
        "dir": str(where),
        "config": without_keys(resolved),
        "settings": wandb.Settings(**settings),
    }
    try:
        live = wandb.init(**how)
    except wandb.errors.Error as error:
        if _live:  # another stage's run of this process, which a fresh start of W&B's service would end
            raise
        wandb.teardown()
        live = wandb.init(**how, mode="offline")
        say(f"W&B: {_first_line(error)}; kept in {live.settings.sync_dir}, which `wandb sync` sends later")
    if live.offline:
        _drop_earlier(where / "wandb", Path(live.settings.sync_dir), run_id)
    live.define_metric("train/global_step")
    live.define_metric("*", step_metric="train/global_step", step_sync=True)
    return live, project, group


def _drop_earlier(folder: Path, now: Path, run_id: str) -> None:
    """Remove the offline files of an interrupted start: this one sends their content again."""
    for earlier in folder.glob(f"offline-run-*-{run_id}"):
        if earlier.name != now.name and not list(earlier.glob("*.synced")):
            shutil.rmtree(earlier, ignore_errors=True)


def project_of(recipe: Any) -> str:
    """Return the project of the run at trackers."""
    return str(recipe.project or os.environ.get("WANDB_PROJECT") or PROJECT)


def end_all(code: int) -> None:
    """End all open runs of this process with an exit code."""
    for tracker in list(_live):
        tracker.end(code)


def made_from(recipe: Recipe) -> dict[str, str]:
    """Return, by path, the artifacts of the inputs that a tracked stage wrote."""
    found: dict[str, str] = {}
    for path in input_paths(recipe):
        for folder in (Path(path), Path(path).parent):
            if (folder / MANIFEST).is_file():
                artifact = read_manifest(folder).get("wandb", {}).get("artifact")
                found |= {path: artifact} if artifact else {}
                break
    return found


def has_key() -> bool:
    """Return whether W&B has an API key or token. Does not prompt, and does not use the network."""
    import wandb

    given = os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE")
    return bool(given or wandb.login(prompt=False, verify=False))


def _named(row: dict[str, Any]) -> dict[str, Any]:
    return {f"eval/{key[5:]}" if key.startswith("eval_") else f"train/{key}": value for key, value in row.items()}


def _flat(row: dict[str, Any], under: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{under}{key}/")
        else:
            found[f"{under}{key}"] = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
    return found


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _within(seconds: float, ask: Callable[[], Any]) -> None:
    """Run a request with a time limit. A failure, such as a missing artifact, is only reported."""

    def quietly() -> None:
        try:
            ask()
        except Exception as error:
            say(f"W&B: lineage: {_first_line(error)}")

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    thread.join(seconds)
