"""What models do to their output layer's numbers, told from large hidden states, and repeated where answers are."""

import copy

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from alignment.config.schema import DatasetEntry, PPORecipe
from alignment.errors import ModelError
from alignment.ops.logits import LogitRule
from alignment.policy.load_roles import load_roles
from alignment.policy.output_layer import logit_rule, without_rounding
from tests.models import make_model, make_tokenizer
from tests.train.ppo_runs import make_trainer, trained_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),  # GPT-2's layers are Conv1D
]

CAP, SCALE = 5.0, 0.25
RULES = {
    "Llama": ({}, LogitRule()),
    "Qwen3": ({"head_dim": 8}, LogitRule()),
    "GPT2": ({"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}, LogitRule()),
    "Gemma2": ({"final_logit_softcapping": CAP, "head_dim": 8}, LogitRule(cap=CAP)),
    "Gemma3": ({"final_logit_softcapping": CAP, "head_dim": 8}, LogitRule(cap=CAP)),
    "NanoChat": ({"final_logit_softcapping": CAP, "head_dim": 8}, LogitRule(cap=CAP)),
    "Cohere": ({"logit_scale": SCALE}, LogitRule(SCALE)),
    "Cohere2": ({"logit_scale": SCALE, "head_dim": 8}, LogitRule(SCALE)),
    "Granite": ({"logits_scaling": 1 / SCALE}, LogitRule(SCALE)),
    "HyperCLOVAX": ({"logits_scaling": SCALE}, LogitRule(SCALE)),
}


def make(name, **more):
    """A tiny random model of a class, whose output layer gives numbers up to about 30."""
    given, _ = RULES[name]
    tokenizer = make_tokenizer()
    config_class = getattr(transformers, f"{name}Config", None) or getattr(transformers, f"{name}TextConfig")
    if name == "Gemma3":
        config_class = transformers.Gemma3TextConfig
    model_class = getattr(transformers, f"{name}ForCausalLM", None) or transformers.GPT2LMHeadModel
    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128,
    }  # fmt: skip
    config = config_class(
        vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=1, bos_token_id=2, tie_word_embeddings=False,
        initializer_range=0.3, **({} if name == "GPT2" else sizes), **given, **more,
    )  # fmt: skip
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(4)
    return model, tokenizer


def save(name, folder, **more):
    model, tokenizer = make(name, **more)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("trained", [True, False], ids=["large", "as-new"])
def test_a_models_logit_rule_is_distinguished_from_large_logits(name, dtype, trained):
    model, _ = make(name)
    if not trained:
        model.apply(lambda module: isinstance(module, torch.nn.Linear) and module.weight.data.mul_(1e-3))
    assert logit_rule(model.to(dtype)) == RULES[name][1]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("head_trains", [False, True])
def test_answers_have_the_probability_of_the_plain_model(name, tmp_path, head_trains):
    base = save(name, tmp_path / "base")
    targets = {"lora_target_modules": "all-linear"}
    more = {"lora_modules_to_save": ["lm_head"]} if head_trains else {}
    recipe = PPORecipe(
        stage="ppo", output_dir="unused", model_name_or_path=str(base), datasets=[DatasetEntry(path="unused")],
        reward_model_path="unused", total_episodes=8, lora_r=4, **targets, **more,
    )  # fmt: skip
    roles = load_roles(recipe)
    ids = torch.randint(3, 250, (3, 10), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[:, 4:9] = True
    plain = AutoModelForCausalLM.from_pretrained(base).eval()
    logits = plain(input_ids=ids).logits / 0.7
    assert float(plain(input_ids=ids).logits.detach().abs().max()) > 3
    expected = logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)[mask[:, 1:]]
    entropy = torch.distributions.Categorical(logits=logits[:, :-1][mask[:, 1:]]).entropy()
    found, found_entropy, _ = roles(ids, mask, temperature=0.7, with_entropy=True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found_entropy, entropy, rtol=1e-4, atol=1e-4)
    assert torch.equal(roles.reference_logp(ids, mask, temperature=0.7), found)

    # the gradient reaches the adapters as it would through the plain model's own logits
    found.square().sum().backward()
    ours = {name: p.grad.clone() for name, p in roles.named_parameters() if p.grad is not None and ".policy." in name}
    assert ours
    roles.zero_grad()
    roles.activate("policy")
    theirs = roles.causal_lm("policy")(input_ids=ids).logits / 0.7
    again = theirs.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)[mask[:, 1:]]
    again.square().sum().backward()
    for parameter, gradient in ours.items():
        expected = dict(roles.named_parameters())[parameter].grad
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["Gemma2", "Cohere", "Granite"])
def test_ppo_trains_models_with_rules(name, tmp_path):
    trainer = make_trainer(save(name, tmp_path / "base"), tmp_path / "run", updates=1, many_stops=False)
    before = trained_weights(trainer)
    trainer.train()
    ratios = [entry for entry in trainer.state.log_history if "kl" in entry]
    assert ratios[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert any(not torch.equal(weight, before[key]) for key, weight in trained_weights(trainer).items())


def test_a_rule_that_the_configuration_does_not_explain_is_refused(monkeypatch):
    model, _ = make("Llama")
    plain = type(model).forward

    def bent(self, *inputs, **keys):
        output = plain(self, *inputs, **keys)
        output.logits = output.logits.sinh()
        return output

    monkeypatch.setattr(type(model), "forward", bent)
    with pytest.raises(ModelError, match="LlamaForCausalLM does something to its logits that no scale and no cap"):
        logit_rule(model)


@pytest.mark.parametrize("adapted", [False, "lora", "whole"])
def test_an_output_layer_of_half_precision_gives_sums_that_are_not_rounded(adapted):
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, initializer_range=0.3).to(torch.bfloat16)
    ids = torch.arange(3, 12).unsqueeze(0)
    if adapted:
        where = {"target_modules": ["lm_head"]} if adapted == "lora" else {"modules_to_save": ["lm_head"]}
        where.setdefault("target_modules", ["q_proj"])
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, **where)).get_base_model()
    exact = copy.deepcopy(model)
    without_rounding(model)
    with torch.no_grad():
        hidden = exact.get_decoder()(input_ids=ids).last_hidden_state.double()
        weight = next(p for n, p in exact.named_parameters() if n.startswith("lm_head") and "lora" not in n).double()
        expected = hidden @ weight.T
        rounded, found = exact(input_ids=ids).logits, model(input_ids=ids).logits
    assert found.dtype == torch.float32
    assert float((rounded.double() - expected).abs().max()) > 1e-3
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_gradient_passes_through_such_a_layer_as_through_a_plain_one():
    torch.manual_seed(0)
    plain = torch.nn.Linear(16, 50).to(torch.bfloat16)
    wide = copy.deepcopy(plain)
    holder = torch.nn.Module()
    holder.get_output_embeddings = lambda: wide
    without_rounding(holder)
    x = torch.randn(2, 3, 16).to(torch.bfloat16).requires_grad_()
    above = torch.randn(2, 3, 50)
    ours = torch.autograd.grad((wide(x) * above).sum(), (x, wide.weight, wide.bias))
    theirs = torch.autograd.grad((plain(x).float() * above).sum(), (x, plain.weight, plain.bias))
    for found, expected in zip(ours, theirs, strict=True):
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


def test_a_layer_in_float32_is_cast_by_autocast_and_its_sums_are_not_rounded():
    torch.manual_seed(0)
    layer = torch.nn.Linear(16, 50, bias=False)
    holder = torch.nn.Module()
    holder.get_output_embeddings = lambda: layer
    without_rounding(holder)
    x = torch.randn(4, 16)
    assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(x)
    expected = x.bfloat16().double() @ layer.weight.bfloat16().double().T
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
