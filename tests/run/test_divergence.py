"""What is not finite is found, wherever it lies, and ends training with its step."""

import math

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from alignment.errors import TrainingError
from alignment.ops.finite import first_not_finite
from alignment.run.callbacks import callbacks_for
from alignment.run.divergence import odd_metrics, optimizer_state, trained_weights
from alignment.run.files import read_jsonl
from alignment.train.running import run_training
from tests.run.test_callbacks import Line, open_run

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("odd", [NAN, INF, -INF])
def test_the_tensor_that_is_not_finite_is_named(dtype, odd):
    good, bad = torch.ones(3, dtype=dtype), torch.tensor([1.0, odd], dtype=dtype)
    assert first_not_finite([("good", good), ("bad", bad), ("worse", bad)]) == "bad"
    assert first_not_finite([("good", good), ("none", torch.empty(0)), ("whole", torch.tensor([1]))]) is None


def test_an_overflowing_sum_of_finite_numbers_is_finite():
    assert first_not_finite([("large", torch.full((4,), 3e38))]) is None  # the sum, 1.2e39, is none of float32's
    assert first_not_finite([("half", torch.full((4,), 6e4, dtype=torch.float16))]) is None
    assert first_not_finite([("opposed", torch.tensor([INF, -INF]))]) == "opposed"


def test_an_optimizers_state_is_found_through_wrappers():
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight])
    weight.grad = torch.full((2,), 1e30)  # its square is no float32
    optimizer.step()
    wrapped = type("Wrapper", (), {"optimizer": type("Wrapper", (), {"optimizer": optimizer})()})()
    assert first_not_finite(optimizer_state(wrapped)) == "exp_avg_sq"
    assert torch.isfinite(weight).all()


def test_only_weights_that_train_are_looked_at():
    model = nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    assert [name for name, _ in trained_weights(model)] == ["weight"]


@pytest.mark.parametrize(
    ("logs", "overflows", "odd"),
    [
        ({"loss": NAN}, False, ["loss is nan"]),
        ({"eval_loss": INF, "epoch": 1.0}, False, ["eval_loss is inf"]),
        ({"score": -INF, "kl": 0.1}, False, ["score is -inf"]),
        ({"grad_norm": INF}, False, ["grad_norm is inf"]),
        ({"grad_norm": INF}, True, []),  # fp16's scaler leaves the step out
        ({"eval_accuracy_low": NAN, "eval_accuracy_high": NAN}, False, []),  # one prompt has no interval
        ({"logits/chosen": -INF, "note": "nan", "none": None, "steps": 3}, False, []),
    ],
)
def test_metrics_that_may_not_be_odd(logs, overflows, odd):
    assert odd_metrics(logs, overflows=overflows) == odd


def line_trainer(tmp_path, rows, **settings):
    run, recipe = open_run(tmp_path)
    arguments = TrainingArguments(
        output_dir=str(run.path), use_cpu=True, per_device_train_batch_size=1, max_steps=len(rows), logging_steps=1,
        report_to="none", disable_tqdm=True, train_sampling_strategy="sequential", remove_unused_columns=False,
        dataloader_pin_memory=False, logging_nan_inf_filter=False, max_grad_norm=0.0,
        **{"save_steps": 1, "optim": "sgd", **settings},
    )  # fmt: skip
    return run, Trainer(model=Line(), args=arguments, train_dataset=rows, callbacks=callbacks_for(run, recipe))


def test_the_last_update_is_looked_at(tmp_path):
    _, trainer = line_trainer(
        tmp_path, [{"x": 1.0, "y": 1.0}], learning_rate=1e300, save_strategy="no", optim="adamw_torch_fused"
    )
    with pytest.raises(
        TrainingError, match=r"a weight after step 1 is not finite \(slope\); .* No checkpoint had been"
    ):
        trainer.train()


def test_a_checkpoint_that_is_not_finite_is_not_marked_whole(tmp_path):
    rows = [
        {"x": 1.0, "y": 0.0},
        {"x": 10.0, "y": 1e19},
    ]  # losses 0 and 1e38, gradients 0 and -2e20: the update is 2e40
    run, trainer = line_trainer(tmp_path, rows, learning_rate=1e20, lr_scheduler_type="constant")
    with pytest.raises(
        TrainingError, match=r"after step 2 is not finite \(slope\); .* good checkpoint is .*checkpoint-1"
    ):
        trainer.train()
    assert not (run.path / "checkpoint-2" / "whole.json").exists()


def test_an_update_that_torch_refuses_names_its_step(tmp_path):
    rows = [{"x": 1.0, "y": 0.0}, {"x": 1.0, "y": 1.0}]
    run, trainer = line_trainer(tmp_path, rows, learning_rate=1e300, lr_scheduler_type="linear")
    with pytest.raises(TrainingError, match=r"the update of step 1 is larger than any float; training stopped\."):
        run_training(trainer, run)


def test_a_gradient_of_broken_weights_is_reported_with_the_step_that_broke_them(tmp_path):
    rows = [{"x": 1.0, "y": 1.0}] * 2
    run, trainer = line_trainer(tmp_path, rows, learning_rate=1e300, save_strategy="no", optim="adamw_torch_fused")
    with pytest.raises(TrainingError, match=r"a weight after step 1 is not finite"):
        trainer.train()
    assert [row["step"] for row in read_jsonl(run.metrics_path)] == [1]
