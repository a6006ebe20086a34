"""Which checkpoints stay, and which one a run resumes from."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import Trainer, TrainerCallback, TrainingArguments

from alignment.config.schema import SFTRecipe
from alignment.errors import AlignmentError
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


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {  # what is done to checkpoint-4 of 2 and 4, and what the line tells
    "a byte": (lambda c: flip(c / "model.safetensors"), "model.safetensors holds other bytes than were saved"),
    "the state": (lambda c: flip(c / STATE), f"{STATE} holds other bytes than were saved"),
    "deeper": (
        lambda c: flip(c / "global_step4" / "rank.pt"),
        "global_step4/rank.pt holds other bytes than were saved",
    ),
    "a cut": (lambda c: (c / "model.safetensors").write_bytes(b"1"), "model.safetensors has 1 bytes, and 9 were saved"),
    "a file": (lambda c: (c / "optimizer.pt").unlink(), "optimizer.pt is missing"),
    "a folder": (lambda c: [(c / "optimizer.pt").unlink(), (c / "optimizer.pt").mkdir()], "optimizer.pt is not a file"),
    "mixed": (
        lambda c: shutil.copy(c.parent / "checkpoint-2" / "model.safetensors", c),
        "model.safetensors holds other",
    ),
    "renamed": (
        lambda c: [shutil.rmtree(c), shutil.copytree(c.parent / "checkpoint-2", c)],
        "whole.json is of step 2: the folder was renamed",
    ),
    "of another run": (lambda c: mark_whole(c, "0123"), "whole.json is of another run ('0123', this one is "),
    "no JSON": (lambda c: (c / "whole.json").write_text("{"), "whole.json cannot be read as this project writes it"),
    "no UTF-8": (lambda c: (c / "whole.json").write_bytes(b"\xff"), "whole.json cannot be read as this project"),
    "no object": (
        lambda c: (c / "whole.json").write_text("[1]"),
        "whole.json cannot be read as this project writes it",
    ),
    "empty": (lambda c: (c / "whole.json").write_text('{"files": {}}'), "it lists no files"),
    "odd size": (lambda c: (c / "whole.json").write_text('{"files": {"a": {"bytes": true}}}'), "it lists 'a' as {"),
    "odd step": (lambda c: (c / "whole.json").write_text('{"files": {"a": 1}, "step": []}'), "step is []"),
    "outside": (lambda c: (c / "whole.json").write_text('{"files": {"../../x": 1}}'), "it lists '../../x' as 1"),
    "a mark that is a folder": (lambda c: [(c / "whole.json").unlink(), (c / "whole.json").mkdir()], "is a folder"),
}


def filled(run: RunDirectory, step: int) -> Path:
    """A checkpoint with several files, all of one size at every step."""
    path = checkpoint(run.path, step, whole=False)
    (path / "global_step4").mkdir()
    for name in ("model.safetensors", "optimizer.pt", "global_step4/rank.pt"):
        (path / name).write_text(f"{name[:4]} {step:4}")
    mark_whole(path, run.identifier)
    return path


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_checkpoint_is_kept_and_the_run_goes_on_from_the_one_before(tmp_path, capsys, what):
    first = opened(tmp_path / "run")
    before, damaged = filled(first, 2), filled(first, 4)
    damage, said = DAMAGE[what]
    damage(damaged)
    capsys.readouterr()
    run = opened(tmp_path / "run")
    assert run.checkpoint == str(before)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{damaged}: ")
    assert said in lines[0]
    assert lines[0].endswith("; it is kept as damaged-checkpoint-4, and the run resumes from checkpoint-2")
    assert sorted(path.name for path in run.path.glob("*checkpoint*")) == ["checkpoint-2", "damaged-checkpoint-4"]


@pytest.mark.parametrize("what", DAMAGE)
def test_a_run_without_a_sound_checkpoint_is_refused_and_nothing_is_removed(tmp_path, what):
    first = opened(tmp_path / "run")
    filled(first, 2)
    damaged = filled(first, 4)
    DAMAGE[what][0](damaged)
    flip(first.path / "checkpoint-2" / "optimizer.pt")
    with pytest.raises(AlignmentError, match=r"and no older checkpoint is undamaged\. Restore a copy of it"):
        opened(tmp_path / "run")
    assert left(first.path) == [2, 4]


def test_a_checkpoint_whose_best_is_damaged_is_not_gone_on_from(tmp_path, capsys):
    run = opened(tmp_path / "run", load_best_model_at_end=True)
    for step, best in ((2, 2), (4, 4), (6, 4)):
        (checkpoint(run.path, step, best=best, whole=False) / "model").write_text("1234")
        mark_whole(run.path / f"checkpoint-{step}", run.identifier)
    flip(run.path / "checkpoint-4" / "model")
    again = opened(tmp_path / "run", load_best_model_at_end=True)
    assert again.checkpoint == str(run.path / "checkpoint-2")
    assert "checkpoint-6: its best checkpoint is checkpoint-4, and there model holds other" in capsys.readouterr().err
    assert left(run.path) == [2]


def test_a_checkpoint_that_cannot_be_read_is_kept_where_it_is(tmp_path, monkeypatch):
    run = opened(tmp_path / "run")
    filled(run, 2)
    kept = filled(run, 4)

    def refuse():
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("alignment.policy.saved_files.xxhash.xxh3_128", refuse)
    with pytest.raises(AlignmentError, match=rf"{kept}/.* cannot be read \(Permission denied\); make it readable"):
        opened(tmp_path / "run")
    assert left(run.path) == [2, 4]


def test_the_mark_of_a_version_that_kept_sizes_alone_is_read(tmp_path):
    run = opened(tmp_path / "run")
    path = filled(run, 2)
    (path / "whole.json").write_text('{"model.safetensors": 9, "optimizer.pt": 9}')
    assert opened(tmp_path / "run").checkpoint == str(path)
    (path / "whole.json").write_text('{"model.safetensors": 9, "optimizer.pt": 8}')
    with pytest.raises(AlignmentError, match=r"optimizer.pt has 9 bytes, and 8 were saved"):
        opened(tmp_path / "run")


def test_a_kill_while_an_old_checkpoint_is_deleted_leaves_none_that_looks_damaged(tmp_path, monkeypatch):
    run = opened(tmp_path / "run")
    for step in (2, 4):
        filled(run, step)

    def killed(path, **_):
        (path / "model.safetensors").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            rotate(run.path, 1, None)
    assert opened(tmp_path / "run").checkpoint == str(run.path / "checkpoint-4")
    assert left(run.path) == [4]


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
