"""Evaluation gives the same numbers at every batch size: means over tokens in SFT, over pairs in DPO."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignment.train.dpo import dpo_trainer
from alignment.train.sft import sft_trainer
from tests.train.test_dpo import arguments as dpo_arguments
from tests.train.test_sft import arguments as sft_arguments

ROWS = [
    {"input_ids": [2, *range(10 + n, 10 + n + length)], "labels": [-100, *range(10 + n, 10 + n + length)]}
    for n, length in enumerate((1, 14, 2, 9, 1, 30, 3))
]
PAIRS = [
    {
        "prompt_ids": [2, 10 + n],
        "chosen_ids": [*range(20, 21 + n), 1],
        "rejected_ids": [30 + n, 1],
        "probability": 1 - n / 14,
    }
    for n in range(7)
]
SPEEDS = ("runtime", "per_second")


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir):
    return AutoTokenizer.from_pretrained(tiny_model_dir)


@pytest.fixture
def model(tiny_model_dir):
    """Far from uniform, so that rows and pairs differ in their losses."""
    torch.manual_seed(0)
    found = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return found


def results(trainer):
    found = trainer.evaluate()
    logged = trainer.state.log_history[-1]
    return {key: value for key, value in {**found, **logged}.items() if not key.endswith(SPEEDS)}


@pytest.mark.parametrize("batch", [1, 2, 4, 16])
def test_sft_takes_the_mean_over_tokens(model, tokenizer, tmp_path, batch):
    chosen = {"per_device_eval_batch_size": batch}
    found = results(sft_trainer(model, tokenizer, sft_arguments(tmp_path, **chosen), train=ROWS, evaluation=ROWS))
    losses, hits = [], []
    for row in ROWS:
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1].double()
        labels = torch.tensor(row["labels"][1:])
        losses.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
        hits.append(logits.argmax(-1) == labels)
    assert found["eval_loss"] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
    assert found["eval_mean_token_accuracy"] == pytest.approx(float(torch.cat(hits).double().mean()), rel=1e-5)
    by_rows = torch.stack([loss.mean() for loss in losses]).mean()
    assert abs(found["eval_loss"] - float(by_rows)) > 0.05  # the two means are told apart


def test_dpo_takes_the_mean_over_pairs(model, tiny_model_dir, tokenizer, tmp_path):
    reference = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    found = []
    for batch in (1, 2, 4, 16):
        settings = dpo_arguments(tmp_path, per_device_eval_batch_size=batch, beta=1.0)
        trainer = dpo_trainer(model, tokenizer, settings, reference=reference, train=PAIRS, evaluation=PAIRS)
        found.append(results(trainer))
    one, *others = found
    counted = {key: value for key, value in one.items() if key.startswith("eval_rewards") or key == "eval_loss"}
    assert len(counted) == 5
    for other in others:
        assert {key: other[key] for key in counted} == pytest.approx(counted, rel=1e-4, abs=1e-5)
