import pytest
import torch
from transformers import Trainer, TrainerState, TrainingArguments

from alignment.config.schema import SFTRecipe
from alignment.errors import AlignmentError, TrainingError
from alignment.run.callbacks import MetricsWriter, callbacks_for
from alignment.run.checkpoints import latest_whole, only_whole_checkpoints
from alignment.run.directory import RunDirectory
from alignment.run.files import append_jsonl, read_jsonl


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, x, y):
        return {"loss": ((self.slope * x - y) ** 2).mean()}


def trainer(run: RunDirectory, recipe: SFTRecipe, rows: list[dict[str, float]]) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(run.path), use_cpu=True, per_device_train_batch_size=1, max_steps=len(rows), save_steps=2,
        logging_steps=1, report_to="none", disable_tqdm=True, train_sampling_strategy="sequential",
        remove_unused_columns=False, dataloader_pin_memory=False, logging_nan_inf_filter=False,
    )  # fmt: skip
    return Trainer(model=Line(), args=arguments, train_dataset=rows, callbacks=callbacks_for(run, recipe))


def open_run(tmp_path) -> tuple[RunDirectory, SFTRecipe]:
    recipe = SFTRecipe(
        stage="sft", output_dir=str(tmp_path / "run"), model_name_or_path="m", datasets=[{"path": "d.jsonl"}]
    )
    return RunDirectory.open(recipe), recipe


def test_a_nan_stops_before_the_weights_and_keeps_the_last_good_checkpoint(tmp_path):
    run, recipe = open_run(tmp_path)
    rows = [{"x": 1.0, "y": 1.0}] * 4 + [{"x": float("nan"), "y": 1.0}] + [{"x": 1.0, "y": 1.0}]
    watched = trainer(run, recipe, rows)
    with pytest.raises(TrainingError, match=r"not a finite number at step 5; .*checkpoint-4"):
        watched.train()
    assert torch.isfinite(watched.model.slope)
    assert latest_whole(run.path) == run.path / "checkpoint-4"
    assert [row["step"] for row in read_jsonl(run.metrics_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 8 vs 4"), AlignmentError, "no room"),
    ],
)
def test_a_checkpoint_that_could_not_be_finished_is_taken_away(tmp_path, error, raised, message):
    run, recipe = open_run(tmp_path)
    watched = trainer(run, recipe, [{"x": 1.0, "y": 1.0}] * 6)
    save = watched._save_optimizer_and_scheduler

    def fails_at_four(folder):
        if folder.endswith("-4"):
            raise error
        save(folder)

    watched._save_optimizer_and_scheduler = fails_at_four
    with pytest.raises(raised, match=message), only_whole_checkpoints(run.path):
        watched.train()
    assert [path.name for path in run.path.glob("checkpoint-*")] == ["checkpoint-2"]


def test_going_on_drops_what_was_logged_past_the_checkpoint(tmp_path):
    run, _ = open_run(tmp_path)
    rows = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
    late = [{"step": 2, "eval_loss": 0.1}, {"step": 3, "loss": 0.2}]  # the first was logged after step 2's checkpoint
    for row in rows + late:
        append_jsonl(run.metrics_path, row)
    before = run.metrics_path.read_text().splitlines()
    state = TrainerState(global_step=2, log_history=[{"loss": row["loss"], "step": row["step"]} for row in rows])
    MetricsWriter(run.metrics_path).on_train_begin(None, state, None)
    assert run.metrics_path.read_text().splitlines() == before[:2]


def test_lines_that_were_lost_are_written_again_from_the_checkpoint(tmp_path):
    run, _ = open_run(tmp_path)
    append_jsonl(run.metrics_path, {"step": 1, "loss": 0.5})
    state = TrainerState(global_step=2, log_history=[{"loss": 0.5, "step": 1}, {"loss": 0.25, "step": 2}])
    MetricsWriter(run.metrics_path).on_train_begin(None, state, None)
    assert read_jsonl(run.metrics_path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
