"""Combining adapters: the exact sum is exact, PEFT's approximations are PEFT's, and what does not fit is refused."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from alignment.config.schema import ModelKeys
from alignment.errors import ModelError, RecipeError
from alignment.policy.base import load_causal_lm, load_sequence_classifier
from alignment.policy.combine import combine, parts_of
from alignment.policy.merge import merge
from tests.models import make_tokenizer, save_tiny_model
from tests.policy.test_merge import trained_adapter

ADAPTER = "adapter_model.safetensors"
IDS = torch.tensor([[2, 40, 41, 42, 43, 1]])


@pytest.fixture
def two(wide_model_dir, tmp_path):
    """Two adapters of other targets, scales and weights."""
    one = trained_adapter(wide_model_dir, tmp_path / "a", lora_alpha=8)
    two = trained_adapter(wide_model_dir, tmp_path / "b", lora_alpha=6, lora_target_modules=["q_proj", "up_proj"])
    weights = load_file(two / ADAPTER)
    save_file({name: w.flip(0) for name, w in weights.items()}, two / ADAPTER, metadata={"format": "pt"})
    return one, two


def delta(run):
    """ΔW by module, in float64: scale · B A."""
    config = json.loads((run / "adapter_config.json").read_text())
    weights = {name: w.double() for name, w in load_file(run / ADAPTER).items()}
    scale = config["lora_alpha"] / config["r"]
    return {
        name.partition(".lora_A")[0]: scale * weights[name.replace("lora_A", "lora_B")] @ w
        for name, w in weights.items()
        if ".lora_A." in name
    }


def test_cat_is_the_weighted_sum_of_the_changes(two, tmp_path):
    a, b = two
    assert combine([(str(a), 0.7), (str(b), -0.3)], tmp_path / "out") < 1e-5
    found, of_a, of_b = delta(tmp_path / "out"), delta(a), delta(b)
    assert found.keys() == of_a.keys() | of_b.keys()
    for name, change in found.items():
        wanted = 0.7 * of_a.get(name, 0) - 0.3 * of_b.get(name, torch.zeros_like(change))
        assert torch.allclose(change, wanted, atol=1e-6), name
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 8


def test_the_combined_adapter_gives_the_logits_of_the_summed_weights(two, wide_model_dir, tmp_path):
    a, b = two
    combine([(str(a), 0.7), (str(b), 0.3)], tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(wide_model_dir)
    with torch.no_grad():
        for weight, run in ((0.7, a), (0.3, b)):
            for name, change in delta(run).items():
                plain.get_submodule(name.removeprefix("base_model.model.")).weight += weight * change
        wanted = plain(input_ids=IDS).logits
        keys = ModelKeys(model_name_or_path=str(tmp_path / "out"))
        found = load_causal_lm(keys, trainable=False)(input_ids=IDS).logits
    assert torch.allclose(found, wanted, atol=1e-4)
    assert merge(tmp_path / "out", tmp_path / "merged") < 1e-4


@pytest.mark.parametrize("way", ["linear", "ties", "dare_linear", "dare_ties"])
def test_other_methods_are_pefts(two, wide_model_dir, tmp_path, way):
    settings = {} if way == "linear" else {"density": 0.5}
    combine([(str(two[0]), 0.7), (str(two[1]), 0.3)], tmp_path / "out", way, seed=3, **settings)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(wide_model_dir), two[0], "a")
    model.load_adapter(two[1], "b")
    torch.manual_seed(3)
    model.add_weighted_adapter(["a", "b"], [0.7, 0.3], "c", combination_type=way, **settings)
    model.set_adapter("c")
    with torch.no_grad():
        wanted = model(input_ids=IDS).logits
        found = load_causal_lm(ModelKeys(model_name_or_path=str(tmp_path / "out")), trainable=False)(
            input_ids=IDS
        ).logits
    assert torch.allclose(found, wanted, atol=1e-5)


def test_dares_choice_follows_its_seed(two, tmp_path):
    parts = [(str(run), 0.5) for run in two]
    for place, seed in enumerate((1, 1, 2)):
        combine(parts, tmp_path / f"out{place}", "dare_linear", density=0.5, seed=seed)
    one, same, other = ((tmp_path / f"out{place}" / ADAPTER).read_bytes() for place in range(3))
    assert one == same != other


def test_the_parts_are_recorded(wide_model_dir, tmp_path):
    runs = [trained_adapter(wide_model_dir, tmp_path / name, load_in_4bit=True) for name in "ab"]
    combine([(str(run), 0.5) for run in runs], tmp_path / "out", "dare_ties", density=0.5, seed=4)
    report = json.loads((tmp_path / "out" / "combine.json").read_text())
    assert (report["method"], report["density"], report["seed"]) == ("dare_ties", 0.5, 4)
    assert [part["weight"] for part in report["parts"]] == [0.5, 0.5]
    assert all(len(part["adapter_sha256"]) == 64 for part in report["parts"])
    assert "load_in_4bit: true" in (tmp_path / "out" / "recipe.yaml").read_text()  # later loads hold the base so too


def refused(tmp_path, parts, match, error=ModelError, *given, **options):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=match) as caught:
        combine([(str(run), 0.5) for run in parts], tmp_path / "out", *given, **options)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_adapters_that_do_not_fit_are_refused(two, wide_model_dir, tmp_path, tmp_path_factory):
    a = two[0]
    place = tmp_path_factory.mktemp("others")
    save_tiny_model(place / "base", seed=5)
    other = trained_adapter(place / "base", place / "other")
    dora = trained_adapter(wide_model_dir, place / "dora", peft_method="dora")
    reward = trained_adapter(wide_model_dir, place / "reward", load=load_sequence_classifier)
    whole = trained_adapter(wide_model_dir, place / "whole", lora_modules_to_save=["lm_head"])
    four = trained_adapter(wide_model_dir, place / "four", load_in_4bit=True)
    words = trained_adapter(wide_model_dir, place / "words")
    make_tokenizer(vocab_size=280).save_pretrained(words)
    for run, match in (
        (other, "have different values of base; combine adapters of one base"),
        (dora, "is an adapter of DoRA, whose magnitudes cannot be added"),
        (reward, "is an adapter a reward model's"),
        (whole, "is an adapter with modules_to_save"),
        (four, "have different values of precision of the base"),
        (words, "have different values of tokenizer"),
        (wide_model_dir, "is a whole model already"),
    ):
        refused(tmp_path, (a, run), match)
    file = two[1] / ADAPTER
    file.write_bytes(file.read_bytes()[:-50])
    refused(tmp_path, two, "damaged or was cut off")


def test_options_that_are_wrong_are_refused(two, tmp_path):
    refused(tmp_path, two, "--method 'sum' is none of cat, linear", RecipeError, "sum")
    refused(tmp_path, two, "ties needs --density", RecipeError, "ties")
    refused(tmp_path, two, "--density is for ties", RecipeError, "cat", density=0.5)
    refused(tmp_path, two, "--density 1.5 must be above 0", RecipeError, "ties", density=1.5)
    assert parts_of(["a:0.7", "b"]) == [("a", 0.7), ("b", 1.0)]
    for words in (["a:x", "b"], ["a:nan", "b"], ["a:0", "b"], [":1", "b"], ["a:0.5"]):
        with pytest.raises(RecipeError, match=r"RUN:WEIGHT|two adapters or more"):
            parts_of(words)
