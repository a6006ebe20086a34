"""Weights in 8 bits: what they are, what computes with them, and which models are refused."""

import copy

import pytest
import torch
from bitsandbytes.nn import Linear8bitLt
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from alignment.config.schema import ModelKeys, SFTRecipe
from alignment.errors import ModelError
from alignment.policy.added_tokens import require_whole
from alignment.policy.base import load_causal_lm, load_sequence_classifier, require_loadable
from alignment.policy.eight_bits import Linear8bit
from alignment.policy.quantised import rounded
from tests.models import save_tiny_model
from tests.tuned import apart, keys, with_adapter

IDS = torch.arange(3, 60).reshape(3, 19)
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model whose activations have large columns, which LLM.int8 treats apart."""
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "base", hidden_size=64, initializer_range=0.3)
    tensors = load_file(folder / WEIGHTS)
    tensors["model.embed_tokens.weight"][7, 3] = 90.0  # of one token
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def eight(base, **more):
    return ModelKeys(model_name_or_path=str(base), load_in_8bit=True, **more)


def by_definition(base):
    """The model in float32 with each weight at the nearest of 255 multiples of its row's largest over 127."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for name, module in model.named_modules():
        if type(module) is torch.nn.Linear and name != "lm_head":
            weight = module.weight.data.half().float()
            largest = weight.abs().amax(1, keepdim=True)
            module.weight.data = (weight * (127 / largest)).round() * largest / 127  # ties are rounded so too
    return model


def test_the_layers_but_not_the_outputs_are_integers_with_a_constant_for_each_row(base):
    model = load_causal_lm(eight(base), trainable=False)
    kinds = {name: type(module) for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert kinds.pop("lm_head") is torch.nn.Linear
    assert set(kinds.values()) == {Linear8bit}
    layer = model.model.layers[0].mlp.up_proj
    assert layer.weight.dtype == torch.int8
    assert layer.weight.SCB.shape == (layer.out_features,)
    assert type(load_sequence_classifier(eight(base), trainable=False).score) is torch.nn.Linear


def test_logits_are_those_of_the_rounded_weights_in_training_and_evaluation_and_in_any_batch(base):
    model = load_causal_lm(eight(base), trainable=False)
    expected = by_definition(base)(IDS).logits
    trained = model.train()(IDS).logits
    evaluated = model.eval()(IDS).logits
    assert torch.equal(trained, evaluated)
    assert apart(trained, expected) <= 1e-4 * expected.abs().max()
    assert apart(torch.cat([model(row[None]).logits for row in IDS]), evaluated) <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_with_weights_rounded_to_it(base, dtype):
    name = str(dtype).removeprefix("torch.")
    layer = load_causal_lm(eight(base, dtype=name), trainable=False).model.layers[0].mlp.down_proj
    plain = by_definition(base).model.layers[0].mlp.down_proj
    x = torch.randn(5, layer.in_features, generator=torch.Generator().manual_seed(0), dtype=dtype, requires_grad=True)
    out = layer(x)
    assert out.dtype == dtype
    epsilon = 4 * torch.finfo(dtype).eps  # of sums whose terms were rounded
    assert apart(out.float(), plain(x.float())) <= epsilon * (plain.weight.abs().sum(1).max() * x.abs().max())
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.dtype == dtype
    assert apart(gradient.float(), plain.weight.sum(0)) <= epsilon * plain.weight.abs().sum(0).max()


def test_the_pass_of_bitsandbytes_depends_on_the_batch(base):
    """Why the layers compute otherwise: a column is treated apart where another row of the batch is large."""
    quantised = BitsAndBytesConfig(load_in_8bit=True)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, quantization_config=quantised).eval()
    assert apart(torch.cat([model(row[None]).logits for row in IDS]), model(IDS).logits) > 0.01


def test_gradients_of_lora_are_those_on_the_rounded_weights(base):
    model = with_adapter(str(base), "lora", load_in_8bit=True)
    assert apart(model.eval()(IDS).logits, load_causal_lm(eight(base), trainable=False)(IDS).logits) == 0
    plain = PeftModel(by_definition(base), copy.deepcopy(model.peft_config["default"]))
    generator = torch.Generator().manual_seed(0)
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        if "lora_" in name:
            theirs.data = ours.data = torch.randn(ours.shape, generator=generator) * 0.1
    losses = [each.train()(input_ids=IDS, labels=IDS).loss for each in (model, plain)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    for loss in losses:
        loss.backward()
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        if "lora_" in name:
            assert apart(ours.grad, theirs.grad) <= 1e-4 * theirs.grad.abs().max()


def test_autocast_computes_in_its_type(base):
    model = load_causal_lm(eight(base), trainable=False)
    with torch.autocast("cpu", torch.bfloat16):
        out = model.model.layers[0].mlp.up_proj(torch.ones(1, 64))
    assert out.dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(5, 7), (64, 1), (1, 36)])
def test_a_matrix_of_any_shape_is_rounded_as_a_layer_holds_it(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    layer = Linear8bitLt(shape[1], shape[0], bias=False, has_fp16_weights=False)
    layer.weight.data.copy_(weight)
    layer.to("cpu")
    layer.__class__ = Linear8bit
    found = layer(torch.eye(shape[1])).T
    assert torch.allclose(rounded(weight, eight("unused")), found, atol=1e-6)
    assert apart(found, weight) <= weight.abs().max() / 127 / 2 + 1e-3
    assert torch.equal(layer.to("cpu")(torch.eye(shape[1])).T, found)  # moved, it keeps its constants


@pytest.mark.parametrize("number", [float("nan"), 1e6])
def test_weights_that_cannot_be_rounded_are_refused(tmp_path, number):
    folder = save_tiny_model(tmp_path / "base")
    tensors = load_file(folder / WEIGHTS)
    tensors["model.layers.1.mlp.up_proj.weight"][2, 3] = number
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"layers.1.mlp.up_proj.weight holds NaN, infinity or a number beyond float16"):
        load_causal_lm(eight(folder), trainable=False)


def test_both_numbers_of_bits_are_refused(base):
    with pytest.raises(ModelError, match="load_in_4bit and load_in_8bit cannot both be true"):
        require_loadable(eight(base, load_in_4bit=True), trainable=False, peft=None)


def test_a_model_stored_in_8_bits_computes_as_one_that_is_rounded_here(base, tmp_path):
    quantised = BitsAndBytesConfig(load_in_8bit=True)
    AutoModelForCausalLM.from_pretrained(base, quantization_config=quantised).save_pretrained(tmp_path)
    expected = load_causal_lm(eight(base), trainable=False)(IDS).logits
    for given in ({}, {"load_in_8bit": True}):
        stored = load_causal_lm(ModelKeys(model_name_or_path=str(tmp_path), **given), trainable=False)
        assert type(stored.model.layers[0].mlp.up_proj) is Linear8bit
        assert apart(stored(IDS).logits, expected) == 0
    with pytest.raises(ModelError, match=r"is quantised already \(bitsandbytes, 8 bits\), and load_in_4bit would"):
        load_causal_lm(ModelKeys(model_name_or_path=str(tmp_path), load_in_4bit=True), trainable=False)


def test_a_model_stored_in_8_bits_trains_no_weights_of_its_own(base, tmp_path):
    quantised = BitsAndBytesConfig(load_in_8bit=True)
    AutoModelForCausalLM.from_pretrained(base, quantization_config=quantised).save_pretrained(tmp_path)
    for method in ("full", "hra", "freeze"):
        given = keys(str(tmp_path), method)
        with pytest.raises(
            ModelError, match=r"\(bitsandbytes, 8 bits\), which cannot train; set peft_method to lora"
        ) as no:
            require_loadable(given, trainable=True, peft=given)
        assert no.value.exit_code == 2
    given = keys(str(tmp_path), "lora")
    require_loadable(given, trainable=True, peft=given)


def test_tokens_are_not_added_to_a_model_that_is_stored_in_8_bits(base, tmp_path):
    quantised = BitsAndBytesConfig(load_in_8bit=True)
    AutoModelForCausalLM.from_pretrained(base, quantization_config=quantised).save_pretrained(tmp_path)
    data = {"output_dir": "unused", "datasets": [{"path": "unused"}]}
    recipe = SFTRecipe(stage="sft", model_name_or_path=str(tmp_path), add_tokens=["<|new|>"], **data)
    with pytest.raises(ModelError, match="is stored quantised; name the model that it was made from"):
        require_whole(recipe)


@pytest.mark.parametrize("bits", [4, 8])
def test_copies_of_quantised_modules_do_not_train(base, bits):
    def require(**more):
        given = keys(str(base), "lora", **{f"load_in_{bits}bit": True}, **more)
        require_loadable(given, trainable=True, peft=given)

    for name in ("up_proj", "mlp"):
        with pytest.raises(ModelError, match=rf"modules_to_save: model.layers.0.mlp.\w+ is held in {bits} bits") as no:
            require(lora_modules_to_save=[name])
        assert no.value.exit_code == 2
    require(lora_modules_to_save=["lm_head", "embed_tokens"])


@pytest.mark.parametrize("bits", [4, 8])
def test_a_model_without_layers_to_quantise_is_refused(tmp_path, bits):
    from transformers import FalconConfig, FalconForCausalLM

    shape = FalconConfig(vocab_size=300, hidden_size=64, num_hidden_layers=1, num_attention_heads=2)
    FalconForCausalLM(shape).save_pretrained(tmp_path)
    given = ModelKeys(model_name_or_path=str(tmp_path), **{f"load_in_{bits}bit": True})
    for refuse in (lambda: require_loadable(given, trainable=False, peft=None),
                   lambda: load_causal_lm(given, trainable=False)):  # fmt: skip
        with pytest.raises(ModelError, match=f"load_in_{bits}bit has no effect on FalconForCausalLM"):
            refuse()
