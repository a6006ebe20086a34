"""Which checkpoints stay, and which one a run goes on from."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import Trainer, TrainerCallback, TrainingArguments

from alignment.config.schema import SFTRecipe
from alignment.run.callbacks import callbacks_for
from alignment.run.checkpoints import STATE, latest_whole, mark_whole, only_whole_checkpoints, rotate
from alignment.run.directory import RunDirectory
from alignment.train.running import run_training
from tests.run.test_callbacks import Line


def checkpoint(run: Path, step: int, *, whole: bool = True, best: int | None = None) -> Path:
    path = run / f"checkpoint-{step}"
    path.mkdir(parents=True)
    state = {"best_model_checkpoint": f"elsewhere/checkpoint-{best}" if best else None}
    (path / STATE).write_text(json.dumps(state))
    if whole:
        mark_whole(path)
    return path


def left(run: Path) -> list[int]:
    return sorted(int(path.name.partition("-")[2]) for path in run.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("kept", "best", "expected"),
    [
        (1, None, [6, 8]),  # 8 is not whole: it counts for nothing
        (1, "checkpoint-2", [2, 6, 8]),
        (1, "another/name/checkpoint-2", [2, 6, 8]),  # the run was moved
        (2, "checkpoint-6", [4, 6, 8]),
        (None, None, [2, 4, 6, 8]),
    ],
)
def test_the_newest_whole_checkpoints_and_the_best_stay(tmp_path, kept, best, expected):
    for step in (2, 4, 6):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 8, whole=False)
    rotate(tmp_path, kept, best)
    assert left(tmp_path) == expected


def test_a_run_that_ends_with_its_best_goes_on_from_where_the_best_is_whole(tmp_path):
    checkpoint(tmp_path, 2, best=2)
    checkpoint(tmp_path, 4, best=4, whole=False)
    checkpoint(tmp_path, 6, best=4)
    assert latest_whole(tmp_path).name == "checkpoint-6"
    assert latest_whole(tmp_path, with_best=True).name == "checkpoint-2"


def test_another_process_than_the_main_one_takes_no_checkpoint_away(tmp_path, monkeypatch):
    """The main process may be about to mark it."""
    checkpoint(tmp_path, 2, whole=False)
    for rank, expected in (("1", [2]), ("0", [])):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(RuntimeError, match="elsewhere"), only_whole_checkpoints(tmp_path):
            raise RuntimeError("elsewhere")
        assert left(tmp_path) == expected


def opened(run: Path, **library: object) -> RunDirectory:
    keys = {"model_name_or_path": "m", "datasets": [{"path": "d.jsonl"}], "library": library}
    return RunDirectory.open(SFTRecipe(stage="sft", output_dir=str(run), **keys))


def test_checkpoints_past_the_one_gone_on_from_are_made_anew(tmp_path):
    opened(tmp_path / "run", load_best_model_at_end=True)
    for step, best, whole in ((2, 2, True), (4, 4, False), (6, 4, True)):
        checkpoint(tmp_path / "run", step, best=best, whole=whole)
    run = opened(tmp_path / "run", load_best_model_at_end=True)
    assert run.checkpoint == str(run.path / "checkpoint-2")
    assert left(run.path) == [2]


def test_checkpoints_without_an_optimizer_are_not_gone_on_from(tmp_path):
    opened(tmp_path / "run", save_only_model=True)
    checkpoint(tmp_path / "run", 2)
    run = opened(tmp_path / "run", save_only_model=True)
    assert run.checkpoint is None
    assert left(run.path) == []


class Power(RuntimeError):
    pass


class Fails(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.step:
            raise Power

    def on_log(self, args, state, control, logs=None, **_):
        if "train_runtime" in logs:  # after the last checkpoint, before the best is loaded
            raise Power


def train(run: RunDirectory, *, fails_after: int | None = None) -> float:
    """Fit y = x from 0 upwards; the best slope, at step 4 of 12, is overshot: every later evaluation is worse."""
    rows = [{"x": 1.0, "y": float(y)} for y in (1, 1, 1, 1, 9, 9, 9, 9, 9, 9, 9, 9)]
    arguments = TrainingArguments(
        output_dir=str(run.path), use_cpu=True, per_device_train_batch_size=1, max_steps=12, save_steps=2,
        learning_rate=0.1, optim="sgd", lr_scheduler_type="constant", max_grad_norm=0.0,
        eval_strategy="steps", eval_steps=2, load_best_model_at_end=True, metric_for_best_model="loss",
        save_total_limit=1, report_to="none", train_sampling_strategy="sequential", remove_unused_columns=False,
        dataloader_pin_memory=False, label_names=["y"],
    )  # fmt: skip
    trainer = Trainer(
        model=Line(), args=arguments, train_dataset=rows, eval_dataset=[{"x": 1.0, "y": 1.0}],
        callbacks=callbacks_for(run, run.recipe),
    )  # fmt: skip
    if fails_after is not None:
        trainer.add_callback(Fails(fails_after))
    run_training(trainer, run)
    return float(trainer.model.slope.detach())


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("killed_after", [9, 12])
def test_the_best_outlives_a_limit_of_one_a_kill_and_a_move(tmp_path, killed_after, moved):
    first = opened(tmp_path / "first", load_best_model_at_end=True)
    with pytest.raises(Power):
        train(first, fails_after=killed_after)
    assert left(first.path) == [4, 8 if killed_after == 9 else 12]
    place = tmp_path / ("second" if moved else "first")
    if moved:
        shutil.move(first.path, place)
    # From 0 towards 1 by steps of 0.1 * 2 * (1 - w): the error shrinks to 0.8 of it each time, 1 - 0.8**4 at step 4.
    assert train(opened(place, load_best_model_at_end=True)) == pytest.approx(1 - 0.8**4)
    assert left(place) == [4, 12]
