"""Finding and loading models, and what is refused."""

import json
import os
import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from alignment.config.schema import AdapterKeys, ModelKeys
from alignment.errors import ModelError
from alignment.policy.base import load_causal_lm, load_sequence_classifier
from alignment.policy.model_source import ModelSource, resolve_model
from alignment.policy.tokenizer import load_tokenizer
from alignment.policy.weights import weights_hash
from tests.models import make_model, make_tokenizer, save_tiny_model


class Keys(ModelKeys, AdapterKeys):
    """What a recipe says of model and adapter."""


def keys(path, **changes):
    return Keys(model_name_or_path=str(path), **changes)


def adapter_on(base, path, **changes):
    given = keys(base, lora_r=4, **changes)
    model = load_causal_lm(given, trainable=True, peft=given)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    model.save_pretrained(path)
    return path


@pytest.fixture
def project(tmp_path, tiny_model_dir, monkeypatch):
    """A working directory with `base` and an adapter on it that names it by a relative path."""
    shutil.copytree(tiny_model_dir, tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    adapter_on("base", tmp_path / "runs" / "sft")
    return tmp_path


def test_a_folder_an_adapter_and_a_run_resolve(project, tiny_model_dir):
    assert resolve_model(str(tiny_model_dir)) == ModelSource(base=str(tiny_model_dir))
    assert resolve_model("runs/sft") == ModelSource(base="base", adapter="runs/sft")
    assert resolve_model("runs/sft").newest == "runs/sft"


@pytest.mark.parametrize("file", ["base/model.safetensors", "runs/sft/adapter_model.safetensors"])
def test_weights_that_were_cut_off_are_named(project, file):
    os.truncate(file, 1000)
    with pytest.raises(ModelError, match=f"{file} is damaged or was cut off"):
        resolve_model("runs/sft")


def test_a_relative_base_is_found_from_elsewhere(project, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    source = resolve_model(str(project / "runs" / "sft"))
    assert os.path.samefile(source.base, project / "base")


def test_an_adapter_on_an_adapter_is_refused(project):
    config = json.loads((project / "runs" / "sft" / "adapter_config.json").read_text())
    shutil.copytree(project / "runs" / "sft", project / "runs" / "upper")
    config["base_model_name_or_path"] = "runs/sft"
    (project / "runs" / "upper" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"Merge the lower one first: alignment merge runs/sft OUT"):
        resolve_model("runs/upper")


def test_a_missing_model_is_named(project):
    with pytest.raises(ModelError, match=r"model ./nowhere/at/all does not exist"):
        resolve_model("./nowhere/at/all")
    with pytest.raises(ModelError, match="is a file; name the folder"):
        resolve_model("base/config.json")
    empty = project / "empty"
    empty.mkdir()
    with pytest.raises(ModelError, match=r"empty holds no config.json and no adapter_config.json"):
        resolve_model("empty")
    shutil.rmtree("base")
    with pytest.raises(ModelError, match="base is neither a folder here nor a model that can be had from the Hub"):
        load_causal_lm(keys("runs/sft"), trainable=False)


def test_a_folder_without_weights_is_refused(project):
    (project / "base" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"^base is a model without weights: no model\*.safetensors in it\.$"):
        resolve_model("base")
    (project / "base" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"only as pytorch_model.*a pickle, which can run code"):
        resolve_model("base")
    (project / "runs" / "sft" / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="is an adapter without weights"):
        resolve_model("runs/sft")


def test_an_unfinished_run_is_reported_as_such(project):
    run = project / "runs" / "half"
    run.mkdir()
    (run / "manifest.json").write_text("{}")
    with pytest.raises(ModelError, match="a run directory whose stage has not finished"):
        resolve_model("runs/half")


def test_damaged_weights_are_refused_without_a_traceback(project):
    (project / "base" / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match=r"base/model\.safetensors is damaged or was cut off"):
        load_causal_lm(keys("base"), trainable=False)


def test_an_adapter_of_another_shape_is_refused(project):
    shutil.rmtree("base")
    save_tiny_model(project / "base", hidden_size=64)
    with pytest.raises(ModelError, match=r"adapter runs/sft does not fit the base base: it was trained on another"):
        load_causal_lm(keys("runs/sft"), trainable=False)


def test_an_adapter_of_another_base_of_its_shape_is_refused(project):
    manifest = {"lineage": {"base_sha256": weights_hash("base")}}
    (project / "runs" / "sft" / "manifest.json").write_text(json.dumps(manifest))
    assert resolve_model("runs/sft").base == "base"
    shutil.rmtree("base")
    save_tiny_model(project / "base", seed=1)
    with pytest.raises(ModelError, match=r"runs/sft is an adapter of another base: it was trained on weights"):
        resolve_model("runs/sft")


def test_tokenizer_refusals(project):
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained("base")
    with pytest.raises(ModelError, match=r"has no EOS token, so no answer could ever end; name .* as eos_token"):
        load_tokenizer(keys("base"))
    assert load_tokenizer(keys("base", eos_token="<|im_end|>")).eos_token_id == 1
    with pytest.raises(ModelError, match="eos_token '</s>' is not a token of the tokenizer in base"):
        load_tokenizer(keys("base", eos_token="</s>"))
    make_tokenizer(vocab_size=310).save_pretrained("base")
    with pytest.raises(ModelError, match=r"token ids up to 309, but the model base has 300 embeddings"):
        load_tokenizer(keys("base"))
    for file in (project / "base").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="base holds no tokenizer"):
        load_tokenizer(keys("base"))


def test_the_adapters_own_tokenizer_comes_first(project):
    assert load_tokenizer(keys("runs/sft")).chat_template  # the base's: the adapter has none
    make_tokenizer(chat_template="own").save_pretrained("runs/sft")
    assert load_tokenizer(keys("runs/sft")).chat_template == "own"


def test_a_missing_pad_token_is_unknown_or_eos(project):
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained("base")
    assert load_tokenizer(keys("base")).pad_token_id == 1
    tokenizer.unk_token = "<|im_start|>"
    tokenizer.save_pretrained("base")
    assert load_tokenizer(keys("base")).pad_token_id == 2


IDS = torch.tensor([[2, 40, 41, 42, 1]])


@pytest.mark.parametrize("load_in_4bit", [False, True])
@pytest.mark.parametrize("method", ["lora", "dora"])
def test_a_new_adapter_changes_nothing_and_alone_trains(wide_model_dir, method, load_in_4bit):
    given = keys(wide_model_dir, peft_method=method, lora_r=4, load_in_4bit=load_in_4bit)
    model = load_causal_lm(given, trainable=True, peft=given).eval()
    base = load_causal_lm(given.model_copy(update={"peft_method": "full"}), trainable=False)
    assert torch.allclose(model(IDS).logits, base(IDS).logits, atol=1e-5)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    model(IDS, labels=IDS).loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_four_bits_are_nf4_with_nested_constants(wide_model_dir):
    model = load_causal_lm(keys(wide_model_dir, load_in_4bit=True), trainable=False)
    state = model.model.layers[0].mlp.up_proj.weight.quant_state
    assert state.quant_type == "nf4"
    assert state.nested
    assert model.model.layers[0].mlp.up_proj.compute_dtype == torch.float32  # of a machine without a GPU


def test_an_adapter_is_continued_as_it_is(project):
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), "runs/sft").eval()
    given = keys("runs/sft")
    model = load_causal_lm(given, trainable=True, peft=given).eval()
    assert torch.equal(model(IDS).logits, plain(IDS).logits)
    assert model.peft_config["default"].r == 4
    assert any(parameter.requires_grad for parameter in model.parameters())
    assert not any(p.requires_grad for p in load_causal_lm(given, trainable=False).parameters())
    given = keys("runs/sft", lora_r=8)
    with pytest.raises(
        ModelError, match=r"lora_r is 4 in the adapter, 8 in the recipe\. Leave these keys out, or merge"
    ):
        load_causal_lm(given, trainable=True, peft=given)


def test_full_training_refuses_adapters_and_four_bits(project):
    given = keys("runs/sft", peft_method="full")
    with pytest.raises(ModelError, match=r"is an adapter, but peft_method is full; merge it first \(alignment merge"):
        load_causal_lm(given, trainable=True, peft=given)
    given = keys("base", peft_method="full", load_in_4bit=True)
    with pytest.raises(ModelError, match="load_in_4bit holds the base in 4 bits, which cannot train"):
        load_causal_lm(given, trainable=True, peft=given)


def test_full_training_trains_float32_weights(tmp_path):
    tokenizer = make_tokenizer()
    make_model(tokenizer).to(torch.bfloat16).save_pretrained(tmp_path)
    given = keys(tmp_path, peft_method="full")
    model = load_causal_lm(given, trainable=True, peft=given)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in model.parameters())
    assert load_causal_lm(keys(tmp_path, dtype="bfloat16"), trainable=False).dtype == torch.bfloat16


@pytest.mark.parametrize("four_bits", [False, True])
def test_modules_that_train_whole_are_float32_on_a_half_precision_base(tmp_path, four_bits):
    make_model(make_tokenizer(), hidden_size=64).to(torch.bfloat16).save_pretrained(tmp_path)
    given = keys(
        tmp_path, dtype="bfloat16", load_in_4bit=four_bits, lora_modules_to_save=["embed_tokens", "norm", "lm_head"]
    )
    torch.manual_seed(0)
    model = load_causal_lm(given, trainable=True, peft=given)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert sum(".modules_to_save." in name for name in trained) == 2 + 5  # PEFT takes every name that ends so
    ids = torch.arange(3, 12).unsqueeze(0)
    before = load_causal_lm(given, trainable=False)(input_ids=ids).logits
    found = model(input_ids=ids).logits
    torch.testing.assert_close(found.float(), before.float(), atol=0.02, rtol=0.02)  # bfloat16 has 8 bits
    found.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for n, p in trained.items() if "lora_A" not in n)
    model.save_pretrained(tmp_path / "saved")
    plain = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16), tmp_path / "saved"
    )
    assert plain(input_ids=ids).logits.dtype == torch.bfloat16


def test_a_reward_adapter_starts_from_the_policys(project):
    given = keys("runs/sft")
    model = load_sequence_classifier(given, trainable=True, peft=given, pad_token_id=0)
    policy = load_causal_lm(given, trainable=False)
    mine, theirs = (dict(m.named_parameters()) for m in (model, policy))
    shared = [name for name in theirs if "lora_" in name]
    assert shared
    assert all(torch.equal(mine[name], theirs[name]) for name in shared)
    trained = {name for name, parameter in mine.items() if parameter.requires_grad}
    assert trained == {*shared, "base_model.model.score.modules_to_save.default.weight"}
    assert model.config.pad_token_id == 0
    assert model(IDS).logits.shape == (1, 1)
    model.save_pretrained("runs/reward")
    again = load_sequence_classifier(keys("runs/reward"), trainable=False, pad_token_id=0)
    assert torch.equal(again.eval()(IDS).logits, model.eval()(IDS).logits)
    assert resolve_model("runs/reward").base == "base"
