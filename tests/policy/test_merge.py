"""Merging: the merged model says the same, is proven to, and is not left behind where it does not."""

import dataclasses
import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig

from alignment.config.schema import AdapterKeys, ModelKeys
from alignment.config.schema.keys import QUANTISING
from alignment.errors import ModelError
from alignment.policy import merge as merging
from alignment.policy.base import load_causal_lm, load_sequence_classifier
from alignment.policy.merge import merge
from alignment.policy.model_source import resolve_model
from alignment.policy.saved_files import read_mark
from alignment.policy.switch_merged import switch
from alignment.policy.tokenizer import load_tokenizer
from tests.models import make_model, make_tokenizer, save_tiny_model


class Keys(ModelKeys, AdapterKeys):
    """What a recipe says of model and adapter."""


def trained_adapter(base, path, *, load=load_causal_lm, **changes):
    """An adapter with weights as if it had trained, with the recipe beside it."""
    keys = Keys(model_name_or_path=str(base), lora_r=4, **changes)
    torch.manual_seed(1)
    model = load(keys, trainable=True, peft=keys)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "lora_embedding" in name:
                parameter.normal_(std=0.3)
            if "magnitude" in name or "ia3_l" in name:
                parameter.mul_(1.2)
    model.save_pretrained(path)
    load_tokenizer(keys).save_pretrained(path)
    (path / "recipe.yaml").write_text(yaml.safe_dump({key: getattr(keys, key) for key in QUANTISING}))
    return path


def logits(model, ids):
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("peft_method", ["lora", "dora"])
def test_an_adapter_on_embeddings_leaves_a_tied_output_layer_as_it_was(tmp_path, tied, peft_method):
    save_tiny_model(tmp_path / "base", tie_word_embeddings=tied)
    changes = {"lora_target_modules": ["embed_tokens", "q_proj"], "peft_method": peft_method}
    run = trained_adapter(tmp_path / "base", tmp_path / "run", **changes)
    ids = torch.tensor([[2, 40, 41, 42, 43, 1]])
    unmerged = logits(load_causal_lm(ModelKeys(model_name_or_path=str(run)), trainable=False), ids)
    assert merge(run, tmp_path / "out") < 1e-4
    plain = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"), ids)
    base = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), ids)
    assert (plain - unmerged).abs().max() < 1e-4
    assert (plain - base).abs().max() > 1e-2


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"peft_method": "dora"},
        {"load_in_4bit": True},
        {"load_in_4bit": True, "peft_method": "dora"},
        {"load_in_8bit": True},
        {"load_in_8bit": True, "peft_method": "dora"},
        {"load_in_4bit": True, "peft_method": "ia3"},
        {"load_in_8bit": True, "peft_method": "ia3"},
    ],
    ids=["lora", "dora", "qlora", "qdora", "8 bits", "dora in 8 bits", "ia3 in 4 bits", "ia3 in 8 bits"],
)
def test_the_merged_model_computes_the_same(wide_model_dir, tmp_path, changes):
    run = trained_adapter(wide_model_dir, tmp_path / "run", lora_alpha=16, **changes)
    difference = merge(run, tmp_path / "out")
    ids = torch.tensor([[2, 40, 41, 42, 43, 1]])
    held = {key: changes[key] for key in QUANTISING if key in changes}
    keys = ModelKeys(model_name_or_path=str(run), **held)
    unmerged = logits(load_causal_lm(keys, trainable=False), ids)
    plain = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"), ids)
    base = logits(AutoModelForCausalLM.from_pretrained(wide_model_dir), ids)
    assert difference < 1e-4
    assert (plain - unmerged).abs().max() < 1e-4
    assert (plain - base).abs().max() > 0.05  # the adapter does something
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    assert (tmp_path / "out" / "generation_config.json").is_file()
    report = json.loads((tmp_path / "out" / "merge.json").read_text())
    assert report["largest_logit_difference"] == difference
    assert report["base_weights"] == (f"{keys.bits}-bit, dequantised" if held else "as they are")


@pytest.mark.parametrize("key", [{}, {"load_in_8bit": True}], ids=["by the files", "by the key too"])
@pytest.mark.parametrize("bits", [4, 8])
def test_an_adapter_on_a_base_that_is_stored_quantised_merges_into_its_dequantised_weights(
    wide_model_dir, tmp_path, bits, key
):
    stored = shutil.copytree(wide_model_dir, tmp_path / "stored")
    quantised = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    AutoModelForCausalLM.from_pretrained(wide_model_dir, quantization_config=quantised).save_pretrained(stored)
    run = trained_adapter(stored, tmp_path / "run", lora_alpha=16, **(key if bits == 8 else {}))
    ids = torch.tensor([[2, 40, 41, 42, 43, 1]])
    unmerged = logits(load_causal_lm(ModelKeys(model_name_or_path=str(run)), trainable=False), ids)
    assert merge(run, tmp_path / "out") < 1e-4
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert all(parameter.dtype == torch.float32 for parameter in plain.parameters())
    assert (logits(plain, ids) - unmerged).abs().max() < 1e-4
    report = json.loads((tmp_path / "out" / "merge.json").read_text())
    assert report["base_weights"] == f"{bits}-bit, dequantised"
    with pytest.raises(ModelError, match="cannot be merged one layer at a time: its base is stored quantised"):
        switch(tmp_path / "out", run, run, tmp_path / "other")


def test_a_base_that_another_library_quantised_is_not_merged_into(wide_model_dir, tmp_path):
    base = shutil.copytree(wide_model_dir, tmp_path / "base")
    run = trained_adapter(base, tmp_path / "run")
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ModelError, match=r"base is quantised \(gptq\), and an adapter is merged into weights that bits"
    ):
        merge(run, tmp_path / "out")


def test_reward_adapter_merges_to_a_plain_classifier(tiny_model_dir, tmp_path):
    run = trained_adapter(tiny_model_dir, tmp_path / "run", load=load_sequence_classifier)
    merge(run, tmp_path / "out")
    ids = torch.tensor([[2, 40, 41, 42, 43, 1]])
    keys = ModelKeys(model_name_or_path=str(run))
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert plain.num_labels == 1
    assert torch.allclose(logits(plain, ids), logits(load_sequence_classifier(keys, trainable=False), ids), atol=1e-5)


def test_half_precision_base_stays_half(tmp_path):
    tokenizer = make_tokenizer()
    make_model(tokenizer).to(torch.bfloat16).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    run = trained_adapter(tmp_path / "base", tmp_path / "run")
    assert 0 < merge(run, tmp_path / "out") < 0.1
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == torch.bfloat16
    with pytest.raises(ModelError, match="tolerance 1e-07"):
        merge(run, tmp_path / "strict", 1e-7)


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`")
def test_a_merged_weight_that_overflows_its_type_is_not_written(tmp_path):
    """A row of the embeddings that no sample reads: the logits alone would not tell."""
    base = tmp_path / "base"
    tokenizer = make_tokenizer()
    make_model(tokenizer).to(torch.float16).save_pretrained(base)
    tokenizer.save_pretrained(base)
    run = trained_adapter(base, tmp_path / "run", lora_target_modules=["embed_tokens"])
    weights = load_file(run / "adapter_model.safetensors")
    name = next(name for name in weights if name.endswith("lora_embedding_A"))
    weights[name][:, 3] = 1e6  # float16 ends at 65,504
    save_file(weights, run / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"merged, \S+ holds NaN or infinity in torch.float16; nothing was written"):
        merge(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_merged_model_lists_its_files(tiny_model_dir, tmp_path):
    merge(trained_adapter(tiny_model_dir, tmp_path / "run"), tmp_path / "out")
    assert {"model.safetensors", "config.json"} <= read_mark(tmp_path / "out").files.keys()
    with (tmp_path / "out" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(ModelError, match=r"model.safetensors holds other bytes than were saved"):
        resolve_model(str(tmp_path / "out"))


def test_past_tolerance_nothing_is_left(tiny_model_dir, tmp_path, monkeypatch):
    run = trained_adapter(tiny_model_dir, tmp_path / "run")
    honest = merging._merged

    def off(*given):
        model = honest(*given)
        with torch.no_grad():
            model.lm_head.weight[7] += 1.0
        return model

    monkeypatch.setattr(merging, "_merged", off)
    with pytest.raises(ModelError, match=r"out: the merged model differs from .*run: largest logit difference .*, tol"):
        merge(run, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_refusals(tiny_model_dir, tmp_path):
    with pytest.raises(ModelError, match="nowhere: no such folder; name a run or adapter folder"):
        merge("nowhere", tmp_path / "out")  # could be a Hub id, but nobody is asked
    with pytest.raises(ModelError, match="is a whole model already"):
        merge(tiny_model_dir, tmp_path / "out")
    run = trained_adapter(tiny_model_dir, tmp_path / "run")
    with pytest.raises(ModelError, match="exists already"):
        merge(run, run)


def test_an_adapter_of_a_method_that_does_not_merge_is_refused(tiny_model_dir, tmp_path, monkeypatch):
    from alignment.config import methods

    facts = dataclasses.replace(methods.TUNING_METHODS["lora"], merges=False)
    monkeypatch.setitem(methods.TUNING_METHODS, "lora", facts)
    with pytest.raises(ModelError, match="is an adapter of LoRA, which cannot be added to a base's weights"):
        merge(trained_adapter(tiny_model_dir, tmp_path / "run"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
