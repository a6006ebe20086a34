"""Every stage, ended at every kind of file event and started again by the same command: the same run, to the bit.

A run's file events are noted once. A kind is an event and a name whose numbers are left out; of each kind the first and
the last are moments to end the run at. `KILLS=all` tries all of them, which takes an hour; a number tries as many.
"""

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from tests import killing
from tests.kill_runs import TRAINED, Runs, some, write_inputs

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(7200)]
KILLS = os.environ.get("KILLS", "6")
BY_EPOCH: dict[str, Any] = {
    "max_steps": None, "num_train_epochs": 2, "eval_steps": None, "eval_strategy": "epoch", "save_strategy": "epoch",
    "logging_strategy": "epoch", "load_best_model_at_end": True,
}  # fmt: skip
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "epochs": ("sft", BY_EPOCH),
    "other-strategies": ("sft", {**BY_EPOCH, "save_strategy": "steps", "load_best_model_at_end": None}),
    "best": ("sft", {"save_strategy": "best", "metric_for_best_model": "eval_loss", "greater_is_better": False}),
    "early-stopping": (
        "sft",
        {"max_steps": 20, "learning_rate": 3.0, "eval_steps": 1, "save_steps": 1, "load_best_model_at_end": True,
         "early_stopping_patience": 2, "metric_for_best_model": "eval_loss", "logging_steps": 3},
    ),
    "grouped-by-length": ("sft", {"max_steps": 11, "train_sampling_strategy": "group_by_length"}),
    "evaluated-at-start": ("sft", {"eval_on_start": True, "include_num_input_tokens_seen": "all"}),
    "loaded-by-workers": ("reward", {"max_steps": 11, "dataloader_num_workers": 1}),
    "members": ("reward", {"num_members": 2}),
    "full": ("reward", {"peft_method": "full", "lora_dropout": None, "save_total_limit": 1}),
    "moving-reference": (
        "dpo",
        {"peft_method": "full", "lora_dropout": None, "sync_ref_model": True, "ref_model_sync_steps": 2,
         "ref_model_mixup_alpha": 0.5},
    ),
    "precomputed-reference": ("dpo", {"precompute_ref_log_probs": True}),
    "adaptive-kl": ("ppo", {"adaptive_kl_target": 0.1, "target_kl": 0.01, "save_steps": 1}),
    "no-checkpoints": ("ppo", {"save_strategy": "no"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def chosen(moments: list[str], share: float = 1.0) -> list[int]:
    found = killing.windows(moments)
    return found if KILLS == "all" else some(found, max(2, round(int(KILLS) * share)))


@pytest.mark.parametrize("stage", [*TRAINED, "label", "evaluate"])
def test_killed_at_every_kind_of_moment(inputs: Path, tmp_path: Path, stage: str) -> None:
    runs = Runs(inputs, tmp_path, stage)
    straight, moments = runs.straight()
    for place in chosen(moments):
        assert runs.goes_on_after(place) == [-signal.SIGKILL], moments[place - 1]
        assert not killing.differences(straight, runs.run), moments[place - 1]


@pytest.mark.parametrize("stage", [*TRAINED, "label", "evaluate"])
def test_a_signal_to_end_at_every_kind_of_moment(inputs: Path, tmp_path: Path, stage: str) -> None:
    runs = Runs(inputs, tmp_path, stage)
    straight, moments = runs.straight()
    for place in chosen(moments, 0.5):
        [code] = runs.goes_on_after(place, number=signal.SIGTERM)
        assert code == 143 or (code == 0 and place == len(moments)), moments[place - 1]  # the last is the finished mark
        assert not killing.differences(straight, runs.run), moments[place - 1]


@pytest.mark.parametrize("stage", TRAINED)
def test_killed_three_times_and_while_it_goes_on(inputs: Path, tmp_path: Path, stage: str) -> None:
    runs = Runs(inputs, tmp_path, stage)
    straight, moments = runs.straight()
    any_of = random.Random(stage)
    for place in chosen(moments, 0.3):
        kills = (place, any_of.randint(1, 12), any_of.randint(1, len(moments)))  # the second while it starts
        runs.goes_on_after(*kills)
        assert not killing.differences(straight, runs.run), kills


@pytest.mark.parametrize("way", WAYS)
def test_killed_in_other_ways_of_training(inputs: Path, tmp_path: Path, way: str) -> None:
    stage, keys = WAYS[way]
    runs = Runs(inputs, tmp_path, stage, **keys)
    straight, moments = runs.straight()
    for place in chosen(moments, 0.3):
        assert runs.goes_on_after(place) == [-signal.SIGKILL], moments[place - 1]
        assert not killing.differences(straight, runs.run), moments[place - 1]
