"""The shared trunk: passes that start from its states equal whole passes, on models of many architectures."""

import contextlib

import pytest
import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig
from transformers import AutoConfig, AutoModelForCausalLM

from alignment.config.schema import AdapterKeys, DatasetEntry, SFTRecipe
from alignment.errors import ModelError
from alignment.meter import say_once
from alignment.policy.adapters import attach_adapter
from alignment.policy.base import require_method
from alignment.policy.heads import ScalarHead
from alignment.policy.model_source import resolve_model
from alignment.policy.roles import Roles
from alignment.policy.switch import SwitchedBase
from alignment.policy.targets import chosen_layers
from alignment.policy.trunk import lowest_layers, require_trunk

WIDTH, LAYERS = 32, 4
SMALL = {"miss": {"r": 2}, "vera": {"r": 2}, "oft": {"oft_block_size": 4}}
KINDS = {
    "llama": {},
    "qwen3": {"head_dim": 16},
    "mistral": {},
    "gemma2": {"head_dim": 16},
    "gemma3_text": {"head_dim": 16},  # two kinds of attention, looked up by a layer's number
    "gpt_neox": {},
    "phi3": {"pad_token_id": 0, "eos_token_id": 1},
    "cohere2": {"eos_token_id": 1},
    "granite": {},
    "mixtral": {},
    "gpt_oss": {"head_dim": 16},
    "starcoder2": {},
    # whose layers return tuples
    "bloom": {},
    "falcon": {"num_kv_heads": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "gptj": {"rotary_dim": 8},
    "rwkv": {"attention_hidden_size": WIDTH},
}
STREAMS = {  # its layers pass on several streams of hidden states, and some read another layer's keys
    "head_dim": 16,
    "vocab_size_per_layer_input": 99,
    "hidden_size_per_layer_input": 8,
    "laurel_rank": 4,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "activation_sparsity_pattern": [0.0] * LAYERS,
}

EXPERTS = {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}


def base(kind="llama", **keys):
    config = AutoConfig.for_model(
        kind,
        vocab_size=99,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        **keys,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def modules(model, *layers):
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    found = {name for name in linear if any(f".{layer}." in f".{name}." for layer in layers)}
    return found or {name for name, _ in model.named_modules() if name.endswith(f"{layers[0]}.self_attn.q_proj")}


def roles_on(model, **adapters):
    switched = SwitchedBase(model)
    for role, config in adapters.items():
        switched.add(role, config)
    heads = {role: ScalarHead(WIDTH, torch.ones(1, WIDTH)) for role in ("value", "reward")}
    return Roles(switched, heads=heads)


def lora(model, *layers):
    return LoraConfig(r=2, target_modules=modules(model, *layers), init_lora_weights=False)


@pytest.mark.parametrize("kind", KINDS)
def test_passes_from_the_trunk_equal_whole_passes(kind):
    model = base(kind, **KINDS[kind])
    roles = roles_on(model, policy=lora(model, 3), reward=lora(model, 2, 3), value=lora(model, 3))
    assert roles.find_trunk() == {"layers": 2}
    ids = torch.randint(1, 99, (3, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(12).expand(3, 12) > 5
    states = roles.trunk_states(ids)
    assert states.shape == (3, 12, WIDTH)
    assert not states.requires_grad
    whole = roles.trained(ids, mask, temperature=0.7, with_entropy=True)
    begun = roles.trained(ids, mask, temperature=0.7, with_entropy=True, trunk=states)
    parameters = [parameter for parameter in roles.parameters() if parameter.requires_grad]
    gradients = [torch.autograd.grad(sum(part.sum() for part in each), parameters) for each in (whole, begun)]
    for ours, theirs in zip((*begun, *gradients[1]), (*whole, *gradients[0]), strict=True):
        torch.testing.assert_close(ours, theirs)
    for call, options in (("scores", {}), ("reference_logp", {"temperature": 1.0}), ("last_values", {})):
        found, wanted = (roles(ids, mask, call=call, trunk=given, **options) for given in (states, None))
        torch.testing.assert_close(found, wanted)


def test_the_states_depend_on_nothing_above_the_trunk():
    model = base()
    roles = roles_on(model, policy=lora(model, 2))
    assert roles.find_trunk() == {"layers": 2}
    ids = torch.arange(10)[None]
    before = roles.trunk_states(ids)
    with torch.no_grad():
        for parameter in model.model.layers[2].parameters():
            parameter.add_(1.0)
    assert torch.equal(roles.trunk_states(ids), before)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.add_(1.0)
    assert not torch.equal(roles.trunk_states(ids), before)


@pytest.mark.parametrize(
    ("config", "lowest"),
    [
        (lambda model: LoraConfig(r=2, target_modules={"lm_head"}), LAYERS),
        (lambda model: LoraConfig(r=2, target_modules={"embed_tokens"}), 0),
        (lambda model: IA3Config(target_modules=modules(model, 1), feedforward_modules=[]), 1),
        (lambda model: PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), 0),
    ],
    ids=["output layer", "embeddings", "ia3", "soft prompt"],
)
def test_the_trunk_ends_below_the_lowest_adapter(config, lowest):
    model = base(tie_word_embeddings=False)
    roles = roles_on(model, policy=config(model), value=lora(model, 3))
    assert lowest_layers(roles.switched) == {"policy": lowest, "value": 3}
    assert roles.find_trunk() == {"layers": min(lowest, 3)}


def test_a_model_that_cannot_share_is_reported_with_the_reason(monkeypatch, capsys):
    say_once.cache_clear()
    several = base("gemma3n_text", **STREAMS)
    assert roles_on(several, policy=lora(several, 3)).find_trunk() == {"layers": 0}
    told = "the layers below all adapters are not shared; Gemma3nForCausalLM: they pass on more than hidden states of"
    assert told in capsys.readouterr().err
    model = base()
    layer = type(model.model.layers[0])
    plain = layer.forward

    def reads_the_first(self, *inputs, **options):
        keys[self.self_attn.layer_idx] = True
        assert keys[0]
        return plain(self, *inputs, **options)

    keys = {}
    monkeypatch.setattr(layer, "forward", reads_the_first)
    model.model.register_forward_pre_hook(lambda *_: keys.clear())
    assert roles_on(model, policy=lora(model, 3)).find_trunk() == {"layers": 0}
    assert "LlamaForCausalLM: its code does not run without them (KeyError: 0)" in capsys.readouterr().err


def test_layers_that_pass_on_more_than_hidden_states_are_not_shared(monkeypatch):
    model = base()
    roles = roles_on(model, policy=lora(model, 3))
    layer = model.model.layers[3]
    plain = type(layer).forward
    monkeypatch.setattr(type(layer), "forward", lambda self, x, *a, **k: plain(self, x * 1.0, *a, **k) + self.shift)
    for number, each in enumerate(model.model.layers):
        each.shift = float(number)
    assert roles.find_trunk() == {"layers": 3}  # a shift of its own is a layer's matter
    seen = []

    def depends(self, x, *a, **k):
        seen.append(self)
        return plain(self, x, *a, **k) + len(seen) % LAYERS

    monkeypatch.setattr(type(layer), "forward", depends)
    assert roles.find_trunk() == {"layers": 0}  # a layer that counts the layers before it is not


def test_a_new_adapter_below_the_chosen_layers_is_told_which_module_to_take_out():
    model = base(tie_word_embeddings=False)
    low, top = LoraConfig(r=2, target_modules={"embed_tokens"}), lora(model, 3)
    for saved, remedy in (([], "Take embed_tokens out of the modules"), (["policy"], "Merge it")):
        with pytest.raises(ModelError, match=rf"begins at layer 0 \(model.embed_tokens\), so .* layer 2\. {remedy}"):
            require_trunk(roles_on(base(tie_word_embeddings=False), policy=low, value=top).switched, 2, saved=saved)


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (["q_proj", "embed_tokens"], "embed_tokens names model.embed_tokens, which is in no layer"),
        (r".*q_proj|lm_head", "lm_head, which is in no layer"),
        (r".*layers\.0\..*q_proj", "names no module of layers 2, 3"),
        (["v_proj", "layers.0.self_attn.q_proj"], "layers.0.self_attn.q_proj names no module of layers 2, 3"),
    ],
    ids=str,
)
def test_targets_that_no_chosen_layer_has_are_refused(targets, told):
    keys = AdapterKeys(lora_layers=2, lora_target_modules=targets)
    with pytest.raises(ModelError, match=r"lora_target_modules: .*adapter is limited to layers 2, 3") as raised:
        attach_adapter(base(), keys, task="CAUSAL_LM")
    assert told in str(raised.value)


@pytest.mark.filterwarnings("ignore:The following .* keys did not match:RuntimeWarning")
def test_experts_that_peft_adapts_in_every_layer_are_refused_beside_lora_layers():
    model = base("qwen3_next", head_dim=16, num_experts=2, num_experts_per_tok=1, **EXPERTS)
    with pytest.raises(ModelError, match=r"limited to layers 2, 3, and PEFT puts it on .* in layers 0, 1 too"):
        attach_adapter(model, AdapterKeys(lora_layers=2), task="CAUSAL_LM")
    model = base("qwen3_next", head_dim=16, num_experts=2, num_experts_per_tok=1, **EXPERTS)
    attach_adapter(model, AdapterKeys(lora_layers=2, lora_target_modules=["q_proj", "lm_head"]), task="CAUSAL_LM")


def test_require_trunk_names_the_role_and_the_remedy():
    model = base()
    roles = roles_on(model, policy=lora(model, 3), value=lora(model, 1, 3))
    require_trunk(roles.switched, 3, saved=[])
    with pytest.raises(ModelError, match=r"lora_layers is 2 of 4, and the adapter of the value begins at layer 1"):
        require_trunk(roles.switched, 2, saved=["policy"])


@pytest.mark.parametrize("method", ["lora", "dora", "adalora", "dylora", "oft", "vera", "miss"])
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "down_proj"], r".*\.(q|v)_proj"], ids=str)
def test_lora_layers_counts_from_the_top(method, targets):
    own = {"lora_target_modules": targets} if method in ("lora", "dora", "dylora") else {}
    keys = AdapterKeys(
        peft_method=method,
        lora_layers=2,
        **own,
        peft_config={} if own else {"target_modules": targets, **SMALL.get(method, {})},
    )
    model = attach_adapter(base(), keys, task="CAUSAL_LM")
    places = {name for name, p in model.named_parameters() if p.requires_grad and ".layers." in name}
    assert {int(name.partition(".layers.")[2].partition(".")[0]) for name in places} == {2, 3}
    assert chosen_layers(model.peft_config["default"]) == {2, 3}


@pytest.mark.parametrize(
    ("keys", "wanted", "told"),
    [
        ({"lora_layers": LAYERS}, LAYERS, None),  # whose list of targets PEFT shortens
        ({}, LAYERS, None),
        ({"lora_layers": 2}, 2, None),
        ({"lora_layers": 2}, 3, "it is on layers 2, 3 of 0 to 3, and lora_layers is 3"),
        ({"peft_config": {"layers_to_transform": [0, 1]}}, 2, "it is on layers 0, 1 of 0 to 3, and lora_layers is 2"),
        ({}, 2, "it is on layers 0, 1, 2, 3 of 0 to 3, and lora_layers is 2"),
    ],
    ids=str,
)
def test_an_adapter_is_continued_on_the_layers_that_it_has(tmp_path, keys, wanted, told):
    base().save_pretrained(tmp_path / "base")
    model = attach_adapter(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"), AdapterKeys(lora_r=2, **keys), task="CAUSAL_LM"
    )
    model.save_pretrained(tmp_path / "adapter")
    source = resolve_model(str(tmp_path / "adapter"))
    recipe = SFTRecipe(
        stage="sft",
        output_dir="unused",
        model_name_or_path=str(tmp_path / "adapter"),
        datasets=[DatasetEntry(path="unused")],
        lora_layers=wanted,
    )
    expected = contextlib.nullcontext() if told is None else pytest.raises(ModelError, match=told)
    with expected:
        require_method(source, recipe, True, recipe)
