"""`alignment merge` with tuning methods beside LoRA: the merged model is compared with the adapter, or refused."""

import json

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignment.errors import ModelError
from alignment.policy.merge import merge
from tests.tuned import apart, logits, save_base, trained, with_adapter


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("models") / "base")


def saved(base, name, folder):
    model = trained(with_adapter(base, name))
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


def test_a_method_that_cannot_be_merged_is_refused_and_nothing_is_written(base, tmp_path):
    saved(base, "beft", tmp_path / "run")
    with pytest.raises(ModelError, match="is an adapter of BEFT, which cannot be added to a base's weights"):
        merge(tmp_path / "run", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
