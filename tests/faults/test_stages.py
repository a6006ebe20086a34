"""Reported cases of stages: one step, or the check before it."""

import json
import math
import re

import pytest
import yaml

import recipes.dpo
import recipes.sft
from alignment.config.loading import check_recipe
from alignment.policy.tokenizer import load_tokenizer
from tests.faults.trained import case, demonstrations, refusal

__all__ = ["case"]


def metrics(folder, key):
    """Return the values of a metric, in the order in which they were logged."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[key] for row in rows if key in row]


@pytest.mark.parametrize("stage", ["dpo", "reward"])
@pytest.mark.parametrize("metric", ["accuracy", "eval_accuracy", "eval_loss", "nonsense", "rewards_accuracies"])
def test_35_the_name_of_a_metric_is_checked_before_training(case, stage, metric):
    case("35-early-stopping")
    config = f"{stage}-{metric}.yaml"
    known = {"dpo": ("eval_loss", "rewards_accuracies"), "reward": ("accuracy", "eval_accuracy", "eval_loss")}
    if metric in known[stage]:
        check_recipe(config)
    else:
        assert f"{config}:1: metric_for_best_model: must be one of loss," in refusal(check_recipe, config)


def test_36_variables_in_paths_are_replaced_or_refused(case):
    case("36-yaml")
    assert "output_dir" in refusal(check_recipe, "o.yaml")
    assert "loss_type" in refusal(check_recipe, "t.yaml")
    assert demonstrations("tm.yaml")[0].endswith("⟦<think>\nsmall sum\n</think>\n\nFour.<|im_end|>⟧")


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4, 16])
def test_34_the_loss_of_an_evaluation_is_a_mean_over_tokens(case, batch):
    folder = case("34-eval-loss")
    recipes.sft.main(["--config", f"b{batch}.yaml"])
    assert metrics(folder / f"runs/b{batch}", "eval_loss")[-1] == pytest.approx(1.8153, abs=2e-4)  # by hand, want.py


@pytest.mark.slow
@pytest.mark.parametrize("model", ["opt", "granite", "cohere", "gemma2"])
def test_41_dpo_begins_at_ln_2(case, model):
    folder = case("41-logits-scaled")
    keys = {
        "stage": "dpo", "output_dir": "runs/x", "model_name_or_path": f"../../models/kinds/{model}",
        "datasets": [{"path": "pref.jsonl"}], "max_steps": 1, "logging_steps": 1, "save_strategy": "no",
        "per_device_train_batch_size": 8,
    }  # fmt: skip
    (folder / "d.yaml").write_text(yaml.safe_dump(keys))
    recipes.dpo.main(["--config", "d.yaml"])
    assert metrics(folder / "runs/x", "loss")[0] == pytest.approx(math.log(2), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["full", "lora", "l3full"])
def test_16_what_ends_an_answer_stops_plain_generation(case, config):
    folder = case("16-saved-stop-token")
    recipes.sft.main(["--config", f"{config}.yaml", "--max_steps", "1"])
    end = "<|eot_id|>" if config == "l3full" else "<|im_end|>"
    stops = json.loads((folder / f"runs/{config}/generation_config.json").read_text())["eos_token_id"]
    token = load_tokenizer(check_recipe(f"{config}.yaml")).convert_tokens_to_ids(end)
    assert token in (stops if isinstance(stops, list) else [stops])


def test_14_the_marker_of_the_next_role_ends_an_answer(case):
    case("14-role-marker-ends-turn")
    (row,) = demonstrations("r.yaml")
    first, last = re.findall("⟦(.*?)⟧", row, re.DOTALL)
    assert first == "Hello.<|user|>"
    assert last == "Good day.<|user|>"
