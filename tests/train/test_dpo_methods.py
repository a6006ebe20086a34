"""DPO starts at ln 2 with every tuning method, new or continued: its reference is the policy's start, and stays so."""

import math

import pytest
import torch
from transformers import AutoTokenizer

from alignment.config.methods import TUNING_METHODS
from alignment.policy.base import load_causal_lm
from alignment.train.dpo import dpo_trainer
from tests.train.test_dpo import arguments, pairs
from tests.tuned import keys, save_base, trained, with_adapter

BASE_IS_REFERENCE = ("lora", "dylora")  # of a new adapter, without a copy of it
METHODS = [name for name, method in TUNING_METHODS.items() if method.has_adapter]


def losses_of(trainer):
    trainer.train()
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def tokenizer(base):
    return AutoTokenizer.from_pretrained(base)


@pytest.mark.parametrize("name", METHODS)
def test_a_new_adapter_starts_at_ln_2(base, tokenizer, tmp_path, name):
    settings = arguments(tmp_path, max_steps=2, learning_rate=1e-2, beta=1.0)
    model = with_adapter(base, name)
    trainer = dpo_trainer(model, tokenizer, settings, train=pairs())
    assert ("ref" in model.peft_config) == (name not in BASE_IS_REFERENCE)
    losses = losses_of(trainer)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[1] != losses[0]


@pytest.mark.parametrize("name", METHODS)
def test_a_continued_adapter_starts_at_ln_2_and_its_reference_stays(base, tokenizer, tmp_path, name):
    trained(with_adapter(base, name)).save_pretrained(tmp_path / "sft")
    given = keys(str(tmp_path / "sft"), name)
    model = load_causal_lm(given, trainable=True, peft=given)
    settings = arguments(tmp_path, max_steps=3, learning_rate=1e-2, beta=1.0)
    trainer = dpo_trainer(model, tokenizer, settings, train=pairs())
    reference = {key: weight.clone() for key, weight in model.named_parameters() if "ref" in key.split(".")}
    assert reference
    losses = losses_of(trainer)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[-1] < losses[0]
    assert all(torch.equal(weight, dict(model.named_parameters())[key]) for key, weight in reference.items())
