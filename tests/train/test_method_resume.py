"""A killed SFT run ends at the same weights with every tuning method, and its model loads in plain PEFT."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignment.config.peft_types import GENERIC
from alignment.policy.adapters import expected_warnings
from alignment.train.saving import save_trained
from alignment.train.sft import sft_trainer
from alignment.train.tuning import method_callbacks
from tests.train.test_adalora import ROWS, Killed
from tests.train.test_sft import arguments
from tests.tuned import apart, keys, logits, save_base, with_adapter

METHODS = ("lora", "dora", "adalora", *GENERIC)  # tests/train/test_own_methods.py has our own, and soft prompts theirs

# One method of each kind of state: factors, a schedule of ranks, scales, rotations, shared random factors, an index,
# and the base's own weights. The others hold what one of these holds.
FAST = ("lora", "adalora", "ia3", "oft", "vera", "shira", "osf")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("models") / "base")


def sft(base, out, name, *more):
    model = with_adapter(base, name)
    settings = {"max_steps": 4, "learning_rate": 5e-3, "seed": 1, "save_strategy": "steps", "save_steps": 2}
    callbacks = [*method_callbacks(keys(base, name), model), *more]
    tokenizer = AutoTokenizer.from_pretrained(base)
    with expected_warnings():
        return sft_trainer(model, tokenizer, arguments(out, **settings), train=ROWS, callbacks=callbacks)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in METHODS]
)
def test_a_killed_run_ends_at_the_same_weights_and_loads_in_plain_peft(base, tmp_path, name):
    straight = sft(base, tmp_path / "a", name)
    straight.train()
    with pytest.raises(KeyboardInterrupt):
        sft(base, tmp_path / "b", name, Killed()).train()
    resumed = sft(base, tmp_path / "b", name)
    with expected_warnings():
        resumed.train(resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-2"))
    expected = dict(straight.model.named_parameters())
    assert all(torch.equal(p, expected[key]) for key, p in resumed.model.named_parameters())

    run = tmp_path / "run"
    run.mkdir()
    save_trained(resumed, run)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with expected_warnings():
        loaded = PeftModel.from_pretrained(plain, run)
    assert apart(logits(loaded), logits(straight.model)) < 1e-4
