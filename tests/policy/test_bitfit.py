"""BitFit: existing biases, new ones, and the papers' shares."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from alignment.errors import ModelError
from alignment.policy.methods.bitfit import bitfit_config
from tests.models import make_model, make_tokenizer

IDS = torch.arange(3, 40)[None]


def qwen2(vocab_size=64):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return Qwen2ForCausalLM(
        Qwen2Config(vocab_size=vocab_size, num_key_value_heads=2, tie_word_embeddings=False, **sizes)
    )


def gpt2(vocab_size=64):
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_embd=16, n_head=2, vocab_size=vocab_size, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    return GPT2LMHeadModel(config)


def trained(model):
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def three_steps(model):
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model(IDS, labels=IDS).loss.backward()
        optimizer.step()
    with torch.no_grad():
        return model.eval()(IDS).logits


@pytest.mark.parametrize(("make", "kind"), [(qwen2, "BEFT"), (gpt2, "BITFIT")])
def test_three_steps_equal_training_the_models_own_biases_and_load_and_merge(make, kind, tmp_path):
    plain = make()
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    count = trained(plain)
    expected = three_steps(plain)
    model = make()
    model = get_peft_model(model, bitfit_config(model, task_type="CAUSAL_LM"))
    assert model.peft_config["default"].peft_type == kind
    assert trained(model) == count
    torch.testing.assert_close(three_steps(model), expected, rtol=1e-4, atol=1e-5)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        found = model(IDS).logits
        loaded = PeftModel.from_pretrained(make(), tmp_path).eval()
        assert torch.equal(loaded(IDS).logits, found)
        with loaded.disable_adapter():
            assert torch.equal(loaded(IDS).logits, make().eval()(IDS).logits)
        torch.testing.assert_close(loaded.merge_and_unload()(IDS).logits, found, rtol=1e-4, atol=1e-5)


def test_an_architecture_without_biases_is_refused_unless_it_gets_new_ones(shared):
    model = AutoModelForCausalLM.from_pretrained(shared / "models" / "stories260K")
    with pytest.raises(ModelError, match=r"LlamaForCausalLM has no biases, so bitfit has nothing to train; set peft_c"):
        bitfit_config(model)
    model = get_peft_model(model, bitfit_config(model, new_biases=True))
    # q, o 64, k, v 32, gate, up 172, down 64: 600 in each of 5 layers
    assert trained(model) == 3_000
    with pytest.raises(ValueError, match="Base layer has no bias"):
        model.merge_and_unload()


def test_new_biases_start_at_the_bases_function():
    model = make_model(make_tokenizer())
    with torch.no_grad():
        before = model(IDS).logits
        model = get_peft_model(model, bitfit_config(model, new_biases=True))
        assert torch.equal(model(IDS).logits, before)


@pytest.mark.parametrize(
    ("sizes", "share"),
    [
        ({}, "0.094"),
        ({"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}, "0.081"),
    ],
)
def test_the_papers_shares_of_bert_base_and_large(sizes, share):
    with torch.device("meta"):
        model = BertModel(BertConfig(**sizes))
        total = sum(parameter.numel() for parameter in model.parameters())
        model = get_peft_model(model, bitfit_config(model))
    assert f"{100 * trained(model) / total:.3f}" == share
