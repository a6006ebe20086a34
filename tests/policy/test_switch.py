"""Roles of different PEFT types on one base compute what PEFT computes with one adapter alone."""

import copy

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict

from alignment.errors import ModelError
from alignment.policy.switch import Switch, SwitchedBase
from tests.models import make_model, make_tokenizer

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IDS = torch.randint(3, 250, (2, 20), generator=torch.Generator().manual_seed(0))
CONFIGS = {
    "adalora": peft.AdaLoraConfig(init_r=6, target_r=2, total_step=20, target_modules=LINEAR),
    "adamss": peft.AdamssConfig(target_modules=LINEAR),
    "beft": peft.BeftConfig(target_modules=LINEAR),
    "boft": peft.BOFTConfig(boft_block_size=4, target_modules=LINEAR),
    "c3a": peft.C3AConfig(block_size=4, target_modules=LINEAR),
    "delora": peft.DeloraConfig(target_modules=LINEAR),
    "dora": LoraConfig(r=4, use_dora=True, target_modules=LINEAR),
    "fourierft": peft.FourierFTConfig(n_frequency=20, target_modules=LINEAR),
    "gralora": peft.GraloraConfig(r=4, gralora_k=2, target_modules=LINEAR),
    "hira": peft.HiraConfig(r=4, target_modules=LINEAR),
    "hra": peft.HRAConfig(r=4, target_modules=LINEAR),
    "ia3": peft.IA3Config(target_modules=LINEAR, feedforward_modules=["down_proj"]),
    "ln_tuning": peft.LNTuningConfig(target_modules=["input_layernorm", "post_attention_layernorm", "norm"]),
    "loha": peft.LoHaConfig(r=4, target_modules=LINEAR),
    "lokr": peft.LoKrConfig(r=4, target_modules=LINEAR),
    "lora": LoraConfig(r=4, target_modules="all-linear"),
    "miss": peft.MissConfig(r=4, target_modules=LINEAR),
    "modules_to_save": LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head", "norm"]),
    "oft": peft.OFTConfig(r=0, oft_block_size=8, target_modules=LINEAR),
    "randlora": peft.RandLoraConfig(r=4, target_modules=LINEAR),
    "rslora": LoraConfig(r=4, use_rslora=True, rank_pattern={"q_proj": 2}, target_modules=LINEAR),
    "road": peft.RoadConfig(group_size=2, target_modules=LINEAR),
    "shira": peft.ShiraConfig(r=2, target_modules=LINEAR),
    "vblora": peft.VBLoRAConfig(r=2, num_vectors=8, vector_length=4, target_modules=LINEAR),
    "vera": peft.VeraConfig(r=8, target_modules=LINEAR),
    "whole_layer": LoraConfig(r=4, target_modules=LINEAR, modules_to_save=["model.layers.0"]),
}
pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT warns of the defaults of several types


@pytest.fixture(scope="module")
def base():
    return make_model(make_tokenizer(), initializer_range=0.3)


def config_of(kind):
    return copy.deepcopy(CONFIGS[kind])


def moved(parameters, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def alone(base, kind, *, seed):
    """PEFT's own model with one adapter."""
    torch.manual_seed(seed)
    model = PeftModel(copy.deepcopy(base), config_of(kind)).eval()
    moved([p for p in model.parameters() if p.requires_grad], seed)
    return model


def add(switched, role, kind, *, seed):
    torch.manual_seed(seed)
    switched.add(role, config_of(kind))
    moved(switched.adapters[role].trained, seed)


def outcome(model, trained):
    logits = model(input_ids=IDS).logits
    return logits.detach(), torch.autograd.grad(logits.square().mean(), trained, allow_unused=True)


def equal(ours, theirs):
    return (ours is None and theirs is None) or torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", CONFIGS)
def test_roles_of_different_types_compute_as_pefts_own_models(base, kind):
    switched = SwitchedBase(copy.deepcopy(base))
    kinds = {"reward": "ia3", "policy": kind, "value": kind, "reference": "lora"}
    for seed, (role, each) in enumerate(kinds.items()):
        add(switched, role, each, seed=seed)
    switched.base.eval()
    for seed, (role, each) in enumerate(kinds.items()):
        theirs = alone(base, each, seed=seed)
        expected, gradients = outcome(theirs, [p for p in theirs.parameters() if p.requires_grad])
        switched.activate(role)
        logits, found = outcome(switched.base, switched.adapters[role].trained)
        assert torch.equal(logits, expected)
        assert len(found) == len(gradients)
        assert all(equal(a, b) for a, b in zip(found, gradients, strict=True))
        assert any(gradient is not None and gradient.any() for gradient in found)
    switched.activate(None)
    assert torch.equal(switched.base(input_ids=IDS).logits, base(input_ids=IDS).logits)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_role_is_saved_as_peft_saves_it_and_loaded_again(base, kind):
    switched = SwitchedBase(copy.deepcopy(base))
    add(switched, "reference", "lora", seed=1)
    add(switched, "policy", kind, seed=2)
    theirs = get_peft_model_state_dict(alone(base, kind, seed=2))
    with switched.plain("policy") as model:
        saved = get_peft_model_state_dict(model)
        assert not any(isinstance(module, Switch) for module in model.modules())
    assert set(saved) == set(theirs)
    assert all(torch.equal(saved[name], theirs[name]) for name in saved)
    again = SwitchedBase(copy.deepcopy(base))
    again.add("policy", config_of(kind), {name: tensor.clone() for name, tensor in saved.items()})
    for each in (switched, again):
        each.base.eval()
        each.activate("policy")
    assert torch.equal(switched.base(input_ids=IDS).logits, again.base(input_ids=IDS).logits)


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_weight_of_the_base_has_one_name_and_only_adapters_train(base, kind):
    switched = SwitchedBase(copy.deepcopy(base))
    for role in ("policy", "value"):
        add(switched, role, kind, seed=0)
    trained = {id(p) for role in ("policy", "value") for p in switched.adapters[role].trained}
    named = list(switched.base.named_parameters(remove_duplicate=False))
    of_base = [id(parameter) for name, parameter in named if ".policy." not in name and ".value." not in name]
    assert len(of_base) == len(set(of_base)) == len(list(base.parameters()))
    assert {id(parameter) for _, parameter in named if parameter.requires_grad} == trained


REFUSED = [
    (LoraConfig(init_lora_weights="pissa", target_modules=["q_proj"]), "changes the base's own Linear"),
    (LoraConfig(init_lora_weights="olora", target_modules=["q_proj"]), "changes the base's own Linear"),
    (LoraConfig(layer_replication=[[0, 2], [1, 2]], target_modules=["q_proj"]), "replaces the whole list layers"),
    (LoraConfig(bias="lora_only", target_modules=["q_proj"]), "trains weights outside the modules"),
]


@pytest.mark.parametrize(("config", "said"), REFUSED, ids=["pissa", "olora", "layer_replication", "bias"])
def test_an_adapter_that_changes_more_than_it_replaces_is_refused(config, said):
    switched = SwitchedBase(make_model(make_tokenizer(), attention_bias=True))
    switched.add("reference", config_of("lora"))
    with pytest.raises(ModelError, match=said):
        switched.add("policy", copy.deepcopy(config))


def test_packed_bytes_in_a_floating_point_type_are_not_change(base):
    """Under FSDP a 4-bit weight is stored in bfloat16, where its bytes may be NaN, which differs from itself."""
    model = copy.deepcopy(base)
    model.model.layers[0].mlp.register_buffer("packed", torch.full((4,), torch.nan, dtype=torch.bfloat16))
    SwitchedBase(model).add("policy", LoraConfig(r=4, target_modules=LINEAR))


def test_weights_that_do_not_fit_are_refused(base):
    with pytest.raises(ModelError, match=r"the policy adapter does not fit the base: .* has no counterpart"):
        SwitchedBase(copy.deepcopy(base)).add("policy", config_of("lora"), {"base_model.model.x.lora_A.weight": IDS})
    saved = get_peft_model_state_dict(alone(base, "ia3", seed=0))
    wrong = {name: tensor[:3] for name, tensor in saved.items()}
    with pytest.raises(ModelError, match=r"the policy adapter does not fit the base: .*size mismatch"):
        SwitchedBase(copy.deepcopy(base)).add("policy", config_of("ia3"), wrong)


def test_the_model_reads_the_active_modules_attributes(base):
    switched = SwitchedBase(copy.deepcopy(base))
    add(switched, "policy", "modules_to_save", seed=3)
    head = switched.base.get_output_embeddings()
    assert isinstance(head, Switch)
    assert torch.equal(head.weight, base.lm_head.weight)
    switched.activate("policy")
    assert not torch.equal(head.weight, base.lm_head.weight)
    with pytest.raises(AttributeError, match="no_such"):
        _ = head.no_such
