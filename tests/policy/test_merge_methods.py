"""`alignment merge` with tuning methods beside LoRA: the merged model is compared with the adapter, or refused."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from alignment.errors import ModelError
from alignment.policy.base import load_sequence_classifier
from alignment.policy.merge import merge
from tests.models import make_tokenizer
from tests.policy.test_bitfit import gpt2, qwen2
from tests.tuned import apart, logits, save_base, trained, with_adapter


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("models") / "base")


def saved(base, name, folder, **keys):
    model = trained(with_adapter(base, name, **keys))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return logits(model)


@pytest.mark.parametrize("name", ["adalora", "ia3", "oft", "vera", "ln_tuning", "miss"])
def test_the_merged_model_is_the_adapter(base, tmp_path, name):
    expected = saved(base, name, tmp_path / "run")
    difference = merge(tmp_path / "run", tmp_path / "merged")
    assert difference < 1e-3
    assert json.loads((tmp_path / "merged/merge.json").read_text())["largest_logit_difference"] == difference
    assert apart(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), expected) < 1e-3


@pytest.mark.parametrize("make", [qwen2, gpt2])
def test_biases_are_merged_where_the_architecture_has_them(make, tmp_path):
    tokenizer = make_tokenizer()
    plain = make(vocab_size=len(tokenizer) + 1)
    plain.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    expected = saved(str(tmp_path / "base"), "bitfit", tmp_path / "run", peft_config={})
    assert merge(tmp_path / "run", tmp_path / "merged") < 1e-3
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert apart(logits(merged), expected) < 1e-3
    changed = {n for n, p in merged.named_parameters() if not torch.equal(p, dict(plain.named_parameters())[n])}
    assert changed
    assert all(name.endswith(".bias") for name in changed)


@pytest.mark.parametrize("name", ["freeze", "ln_tuning", "ia3"])
def test_a_reward_model_merges_with_its_head(base, tmp_path, name):
    model = with_adapter(base, name, load_sequence_classifier)
    model.save_pretrained(tmp_path / "run")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "run")
    merge(tmp_path / "run", tmp_path / "merged")
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert torch.equal(merged.score.weight, model.score.weight)
    assert merged.score.weight.any()


def test_a_method_that_cannot_be_merged_is_refused_and_nothing_is_written(base, tmp_path):
    saved(base, "beft", tmp_path / "run")
    with pytest.raises(ModelError, match="is an adapter of BEFT, which cannot be added to a base's weights"):
        merge(tmp_path / "run", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
