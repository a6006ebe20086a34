"""What W&B is told of every stage, read back from what it keeps offline."""

import contextlib
import json
import shutil
import sqlite3
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from alignment.manifest import read_manifest
from alignment.run.checkpoints import latest_whole
from alignment.run.files import read_jsonl
from tests.distributed.stage import Stage
from tests.recipes.test_crash import command, text, unfinish
from tests.recipes.test_crash import inputs as inputs
from tests.run.wandb_file import Kept

pytestmark = pytest.mark.timeout(600)
KEY = "sk-this-is-nobodys-key-0123456789"
OFFLINE = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "OPENAI_API_KEY": KEY, "WANDB_RUN_GROUP": "group"}
TRAINING = ("sft", "reward", "dpo", "ppo")


def start(argv: list[str], log: Path, stage: str, processes: int = 1, **environment: str) -> int:
    started = Stage(argv, log, stage=stage, processes=processes, **environment)
    assert started.ends_within(240), Path(f"{log}.0").read_text()
    return 0


@pytest.fixture(scope="module")
def runs(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All six stages, tracked; label reads what SFT made, reward what label made, and so on."""
    folder = tmp_path_factory.mktemp("tracked")
    judge = {"kind": "rules", "function": "tests.evaluate.rules:shorter"}
    policy = {"model_name_or_path": str(folder / "sft"), "datasets": [{"path": str(inputs / "prompts.jsonl")}]}
    recipes = {
        "label": {**policy, "judge": judge, "num_generations": 2, "max_new_tokens": 8},
        "reward": {"datasets": [{"path": str(folder / "label" / "labels.jsonl")}]},
        "ppo": {"reward_model_path": str(folder / "reward"), "model_name_or_path": str(folder / "sft")},
        "evaluate": {
            "model_name_or_path": str(inputs / "base"),
            "baseline_name": "base",
            "candidates": [{"name": "ppo", "model_name_or_path": str(folder / "ppo")}],
            "datasets": [{"path": str(inputs / "prompts.jsonl")}],
            "test_split_size": 0.5,
            "judges": [judge],
            "max_new_tokens": 8,
        },
    }
    for stage in ("sft", "label", "reward", "dpo", "ppo", "evaluate"):
        keys = {"report_to": "wandb", "project": "tests", **recipes.get(stage, {})}
        if stage in TRAINING:
            argv = command(inputs, folder / stage, stage, **keys)
        else:
            file = inputs / f"{stage}.yaml"
            file.write_text(yaml.safe_dump({"stage": stage, "output_dir": str(folder / stage), **keys}))
            argv = ["--config", str(file)]
        start(argv, folder / f"{stage}.log", stage, **OFFLINE)
    return folder


@pytest.mark.parametrize("stage", [*TRAINING, "label", "evaluate"])
def test_a_run_is_found_where_its_users_look_for_it(runs, stage):
    kept = Kept(runs / stage)
    [run] = kept.runs
    assert (run.project, run.run_group, run.job_type) == ("tests", "group", stage)
    assert run.run_id == read_manifest(runs / stage)["wandb_run_id"]
    recipe = {**yaml.safe_load((runs / stage / "recipe.yaml").read_text())}
    assert {key: kept.config.get(key) for key in recipe} == recipe
    for file in (runs / stage / "wandb").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


@pytest.mark.parametrize("stage", TRAINING)
def test_every_metric_is_there_at_its_step(runs, stage):
    require_every_metric(runs / stage)


def require_every_metric(run: Path) -> None:
    history = Kept(run).history
    steps = [row["_step"] for row in history if "train/global_step" in row]
    assert steps == sorted(set(steps)), "doubled, or out of order"
    by_step = {row["_step"]: row for row in history}
    rows = read_jsonl(run / "metrics.jsonl")
    assert len(rows) >= 4
    for row in rows:
        told = by_step[row["step"]]
        assert told["train/global_step"] == row["step"]
        for key, value in row.items():
            if key != "step":
                name = "eval/" + key.removeprefix("eval_") if key.startswith("eval_") else f"train/{key}"
                assert told[name] == pytest.approx(value, abs=0), name


def tables(run: Path, name: str) -> list[dict]:
    found = [json.loads(file.read_text()) for file in run.glob(f"wandb/offline-run-*/files/media/table/{name}_*.json")]
    return sorted(found, key=lambda table: table["data"][0][0] if table["columns"][0] == "step" else 0)


def test_samples_labels_and_answers_are_tables(runs):
    samples = read_jsonl(runs / "ppo" / "samples.jsonl")
    told = [row for table in tables(runs / "ppo", "samples") for row in table["data"]]
    assert [row[0] for row in told] == [row["step"] for row in samples]
    assert tables(runs / "ppo", "samples")[0]["columns"][0] == "step"
    [labels] = tables(runs / "label", "labels")
    assert len(labels["data"]) == len(read_jsonl(runs / "label" / "labels.jsonl"))
    [answers] = tables(runs / "evaluate", "answers")
    assert {"answers/base", "answers/ppo"} <= set(answers["columns"])
    assert len(answers["data"]) == len(read_jsonl(runs / "evaluate" / "answers.jsonl"))


def test_results_are_in_the_summary_of_stages_that_train_nothing(runs):
    [(judge, win_rate)] = read_manifest(runs / "evaluate")["results"]["win_rate"]["ppo"].items()
    assert Kept(runs / "evaluate").summary[f"evaluate/win_rate/ppo/{judge}/value"] == win_rate["value"]
    prompts = len(read_jsonl(runs / "label" / "labels.jsonl"))
    assert Kept(runs / "label").summary["label/prompts"] == prompts


def test_artifacts_name_what_they_were_made_from(runs):
    made = {}
    for stage, kind in {"sft": "model", "label": "dataset", "reward": "model", "ppo": "model"}.items():
        [artifact] = Kept(runs / stage).artifacts
        assert (artifact.type, artifact.name) == (kind, f"group-{stage}")
        made[stage] = f"tests/group-{stage}:{read_manifest(runs / stage)['wandb_run_id']}"
        assert read_manifest(runs / stage)["wandb"]["artifact"] == made[stage]
        assert not [entry.path for entry in artifact.manifest.contents if entry.path.endswith(".safetensors")]
    [labels] = Kept(runs / "label").artifacts
    assert "labels.jsonl" in [entry.path for entry in labels.manifest.contents]
    used = {stage: set(Kept(runs / stage).config["inputs"].values()) for stage in (*made, "evaluate")}
    assert used["label"] == {made["sft"]}
    assert used["reward"] == {made["label"]}
    assert used["ppo"] == {made["sft"], made["reward"]}
    assert used["evaluate"] == {made["ppo"]}


def test_a_resumed_run_goes_on_in_the_same_run_with_no_step_lost_or_doubled(inputs, runs, tmp_path):
    """As a kill after the checkpoint at step 4 leaves it: with logs past it, and W&B's file cut."""
    run = tmp_path / "sft"
    shutil.copytree(runs / "sft", run, symlinks=True)
    unfinish(run)
    for checkpoint in run.glob("checkpoint-*"):
        if checkpoint.name != "checkpoint-6":
            shutil.rmtree(checkpoint)
    argv = command(inputs, run, "sft", report_to="wandb", project="tests", log_model=True)
    start(argv, tmp_path / "log", "sft", **OFFLINE)
    assert latest_whole(run).name == "checkpoint-8"
    assert len(Kept(run).files) == 1, "an earlier start's file, which this one's replaces"
    assert Kept(run).runs[0].run_id == read_manifest(runs / "sft")["wandb_run_id"]
    require_every_metric(run)
    [artifact] = Kept(run).artifacts
    assert "adapter_model.safetensors" in [entry.path for entry in artifact.manifest.contents]


def test_tensorboard_and_trackio_have_every_metric_at_its_step(inputs, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "sft"
    argv = command(inputs, run, "sft", report_to=["tensorboard", "trackio"], eval_strategy="epoch")
    start(argv, tmp_path / "log", "sft", TRACKIO_DIR=str(tmp_path / "trackio"))
    written, kept = defaultdict(list), defaultdict(list)  # the last step's evaluation is made twice
    for folder in {file.parent for file in run.rglob("events.out.tfevents.*")}:
        events = EventAccumulator(str(folder)).Reload()
        for tag in events.Tags()["scalars"]:
            for at in events.Scalars(tag):
                written[tag, at.step].append(pytest.approx(at.value, rel=1e-6))  # event files hold 32 bits
    with contextlib.closing(sqlite3.connect(tmp_path / "trackio" / "alignment-stack.db")) as store:
        stored = [json.loads(text) for (text,) in store.execute("select metrics from metrics order by id")]
    for row in stored:
        for key, value in row.items():
            kept[key, row["train/global_step"]].append(value)
    rows = read_jsonl(run / "metrics.jsonl")
    assert len(rows) >= 10
    for row in rows:
        step = row.pop("step")
        for key, value in row.items():
            name = "eval/" + key.removeprefix("eval_") if key.startswith("eval_") else f"train/{key}"
            assert value in written[name, step]
            if "train_runtime" not in row and not key.endswith(("runtime", "per_second")):  # not sent, or of one of two
                assert value in kept[name, step]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WANDB_MODE": "online", "HOME": "/nonexistent"}, "W&B: no key is set, so the run is not tracked there;"),
        pytest.param(
            {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"},
            "; kept in ",
            marks=pytest.mark.slow,  # W&B waits for as long as it was told to
        ),
    ],
)
def test_a_run_goes_on_without_wandb(inputs, tmp_path, environment, said):
    environment = {"WANDB_SILENT": "true", "NETRC": str(tmp_path / "netrc"), "WANDB_INIT_TIMEOUT": "5", **environment}
    argv = command(inputs, tmp_path / "run", "sft", report_to="wandb", max_steps=2)
    start(argv, tmp_path / "log", "sft", **environment)
    lines = [line for line in text(tmp_path / "log").splitlines() if line.startswith("W&B: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert read_manifest(tmp_path / "run")["status"] == "finished"
