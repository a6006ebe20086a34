"""Bottleneck adapters against a loop in plain torch, and loaded by plain PEFT."""

import json
import subprocess
import sys

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2Config, GPT2LMHeadModel

from alignment.policy.methods.bottleneck import BottleneckConfig, places
from tests.models import make_model, make_tokenizer

IDS = torch.arange(3, 40)[None]


def with_adapter(model, **keys):
    return get_peft_model(model, BottleneckConfig(task_type="CAUSAL_LM", bottleneck_size=8, **keys))


def trained(model):
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def test_houlsbys_parameters_on_stories260k_are_2md_d_m_twice_a_layer(shared):
    model = with_adapter(AutoModelForCausalLM.from_pretrained(shared / "models" / "stories260K"))
    # d = 64, m = 8, 5 layers: 5 * 2 * (2 * 8 * 64 + 64 + 8) = 10 * 1,096
    assert trained(model) == 10_960
    pfeiffer = with_adapter(
        AutoModelForCausalLM.from_pretrained(shared / "models" / "stories260K"), placement="pfeiffer"
    )
    assert trained(pfeiffer) == 5_480


def test_a_new_adapter_is_the_identity():
    base = make_model(make_tokenizer())
    before = logits(base)
    assert torch.equal(logits(with_adapter(base)), before)


@pytest.mark.parametrize("non_linearity", ["relu", "gelu", "silu", "tanh"])
def test_the_output_is_the_papers_at_each_place(non_linearity):
    torch.manual_seed(0)
    model = with_adapter(make_model(make_tokenizer()), init_weights=False, non_linearity=non_linearity)
    layer = model.base_model.model.model.layers[1].mlp.down_proj
    x = torch.randn(3, 64)
    down, up = layer.bottleneck_down["default"], layer.bottleneck_up["default"]
    h = x @ layer.base_layer.weight.T
    f = {"relu": lambda z: z.clamp(min=0), "gelu": torch.nn.GELU(), "silu": lambda z: z * z.sigmoid()}.get(
        non_linearity, torch.tanh
    )
    expected = h + f(h @ down.weight.T + down.bias) @ up.weight.T + up.bias
    torch.testing.assert_close(layer(x), expected)


def test_an_adapter_loads_in_plain_peft_once_the_module_is_imported(tmp_path):
    tokenizer = make_tokenizer()
    make_model(tokenizer).save_pretrained(tmp_path / "base")
    torch.manual_seed(1)
    model = with_adapter(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), init_weights=False)
    model.save_pretrained(tmp_path / "adapter")
    torch.save(logits(model), tmp_path / "logits.pt")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["peft_type"] == "BOTTLENECK"
    code = (
        "import sys, torch\nfrom peft import AutoPeftModelForCausalLM\nimport alignment.policy.methods.bottleneck\n"
        f"model = AutoPeftModelForCausalLM.from_pretrained({str(tmp_path / 'adapter')!r}).eval()\n"
        f"expected = torch.load({str(tmp_path / 'logits.pt')!r})\n"
        "assert torch.equal(model(torch.arange(3, 40)[None]).logits, expected)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_several_adapters_switch_and_one_can_be_off():
    torch.manual_seed(2)
    model = with_adapter(make_model(make_tokenizer()), init_weights=False)
    first = logits(model)
    model.add_adapter("second", BottleneckConfig(task_type="CAUSAL_LM", bottleneck_size=4, init_weights=False))
    assert torch.equal(logits(model), first)
    model.set_adapter("second")
    assert not torch.equal(logits(model), first)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(make_model(make_tokenizer())))
    model.set_adapter("default")
    assert torch.equal(logits(model), first)


def test_merging_is_refused():
    with pytest.raises(ValueError, match="cannot be merged"):
        with_adapter(make_model(make_tokenizer())).merge_and_unload()


def test_adapters_train_beside_a_base_in_4_bits(tmp_path):
    make_model(make_tokenizer(), hidden_size=64).save_pretrained(tmp_path)
    quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    model = with_adapter(AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=quantised))
    model(IDS, labels=IDS).loss.backward()
    up = model.base_model.model.model.layers[0].mlp.down_proj.bottleneck_up["default"]
    assert up.weight.grad.abs().max() > 0


def test_places_of_gpt2_are_conv1d_modules():
    model = with_adapter(GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=64)))
    assert trained(model) == 4 * (2 * 8 * 16 + 16 + 8)


def test_modules_of_bert_separate_attention_from_feed_forward():
    names = [f"bert.encoder.layer.{i}.{end}" for i in range(2) for end in ("attention.output.dense", "output.dense")]
    assert places(names, "pfeiffer") == ["bert.encoder.layer.0.output.dense", "bert.encoder.layer.1.output.dense"]
    assert places(names, "houlsby") == ["dense"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"bottleneck_size": 0}, "bottleneck_size is 0; it must be 1 or more"),
        ({"placement": "parallel"}, "placement is parallel; it must be houlsby or pfeiffer"),
        ({"non_linearity": "swish"}, "non_linearity is swish; it must be relu or gelu or silu or tanh"),
    ],
)
def test_impossible_values_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        BottleneckConfig(**keys)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="name them as target_modules"):
        places(["layers.0.mix", "layers.0.out"], "houlsby")


def test_modules_of_t5_and_modernbert_are_known():
    t5 = ["encoder.block.0.layer.0.SelfAttention.o", "encoder.block.0.layer.1.DenseReluDense.wo"]
    t5 += ["decoder.block.0.layer.1.EncDecAttention.o"]
    assert places(t5, "houlsby") == ["o", "wo"]
    modern = ["model.layers.0.attn.Wo", "model.layers.0.mlp.Wo"]
    assert places(modern, "pfeiffer") == ["model.layers.0.mlp.Wo"]
    assert places(modern, "houlsby") == ["Wo"]
