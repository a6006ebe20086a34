"""Reward models by methods with callbacks of their own: AdaLoRA, which prunes ranks, and Child-tuning, which masks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainingArguments

from alignment.config.schema import ModelKeys
from alignment.data.template import Template
from alignment.policy.adapter_files import read_adapter_config
from alignment.policy.tokenizer import load_tokenizer
from alignment.train.saving import save_trained
from alignment.train.tuning import method_callbacks
from reward.models.batches import EncodedRanking
from reward.models.loading import load_reward_model, score_sequences
from reward.models.trainer import RewardTrainer
from tests.reward.models.test_trainer import encoded, weights
from tests.reward.toy import rankings, recipe

METHODS: dict[str, dict[str, Any]] = {
    "adalora": {"peft_config": {"init_r": 6, "target_r": 2, "tinit": 1, "tfinal": 1}},
    "child_tuning": {"peft_config": {"reserve_p": 0.5}},
}
SEQUENCES = torch.tensor([[3 + row, 40, 41 + row, 9] for row in range(5)])


def make_trainer(base: Path, output: Path, train: list[EncodedRanking], method: str) -> tuple[RewardTrainer, Any]:
    torch.manual_seed(0)
    given = recipe(base, output, peft_method=method, **METHODS[method])
    tokenizer = load_tokenizer(given)
    model = load_reward_model(given, tokenizer, Template(tokenizer).stop_token_ids, trainable=True, peft=given)
    (callback,) = method_callbacks(given, model)
    arguments = TrainingArguments(
        output_dir=str(output),
        use_cpu=True,
        report_to="none",
        remove_unused_columns=False,
        disable_tqdm=True,
        save_steps=3,
        max_steps=6,
        per_device_train_batch_size=8,
        learning_rate=3e-3,
        seed=0,
    )
    return RewardTrainer(model, arguments, tokenizer=tokenizer, train=train, callbacks=[callback]), callback


@pytest.mark.parametrize("method", METHODS)
def test_a_reward_model_trains_resumes_to_the_same_bits_and_scores_alike_once_it_is_saved(
    tiny_model_dir: Path, tmp_path: Path, method: str
) -> None:
    train = encoded(tiny_model_dir, rankings(24))
    whole, callback = make_trainer(tiny_model_dir, tmp_path / "run", train, method)
    before = weights(whole)
    whole.train()
    after = weights(whole)
    assert any(not torch.equal(weight, before[name]) for name, weight in after.items())
    resumed, other = make_trainer(tiny_model_dir, tmp_path / "run", train, method)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert all(torch.equal(weight, after[name]) for name, weight in weights(resumed).items())

    with torch.no_grad():
        expected = score_sequences(whole.model.eval(), SEQUENCES, torch.ones_like(SEQUENCES))
    saved = tmp_path / "saved"
    saved.mkdir()
    save_trained(whole, saved)
    if method == "adalora":
        assert callback.ranks() == other.ranks() == 28  # two layers of 7 modules with 2 of 6 ranks each
        assert sum(read_adapter_config(saved).rank_pattern.values()) == 28
    else:
        assert "score.weight" in load_file(saved / "model.safetensors")
    keys = ModelKeys(model_name_or_path=str(saved))
    tokenizer = load_tokenizer(keys)
    loaded = load_reward_model(keys, tokenizer, Template(tokenizer).stop_token_ids, trainable=False).eval()
    with torch.no_grad():
        found = score_sequences(loaded, SEQUENCES, torch.ones_like(SEQUENCES))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
