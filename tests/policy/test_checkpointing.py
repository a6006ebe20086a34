"""Checkpointing of roles: by every name it has, in the right role, and no further down than needed."""

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy

from alignment.config.schema import DatasetEntry, PPORecipe
from alignment.policy.load_roles import load_roles
from tests.models import save_tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

LAYERS = 3


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("checkpointing") / "base", initializer_range=0.3, layers=LAYERS)


def roles_of(base, **keys):
    recipe = PPORecipe(
        stage="ppo", output_dir="unused", model_name_or_path=str(base), datasets=[DatasetEntry(path="unused")],
        reward_model_path="unused", total_episodes=8, lora_r=4, **keys,
    )  # fmt: skip
    torch.manual_seed(0)
    roles = load_roles(recipe).train()
    with torch.no_grad():
        for name, parameter in roles.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return roles


def batch():
    ids = torch.randint(3, 250, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[:, 4:] = True
    return ids, mask


def gradients(roles):
    logp, _, values = roles(*batch(), temperature=1.0)
    (logp.sum() + values.square().sum()).backward()
    return {name: p.grad for name, p in roles.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ["activation_checkpointing_enable", "gradient_checkpointing_enable"])
@pytest.mark.parametrize("options", [{}, {"every_n_layers": 1, "offload": False}, {"every_n_layers": 2}], ids=str)
def test_trainers_of_all_releases_turn_it_on(base, name, options):
    expected = gradients(roles_of(base))
    roles = roles_of(base)
    getattr(roles, name)(None, **options)
    checkpointed = [m for m in roles.modules() if getattr(m, "gradient_checkpointing", False)]
    assert checkpointed
    torch.testing.assert_close(gradients(roles), expected, rtol=0, atol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_backward_pass_stops_at_the_lowest_adapter(base, checkpointing):
    keys = {"lora_target_modules": rf".*layers\.{LAYERS - 1}\..*(q|v)_proj", "value_model": "head"}
    roles = roles_of(base, **keys)
    if checkpointing:
        roles.activation_checkpointing_enable()
    reached = []
    for place, layer in enumerate(roles.causal_lm("policy").model.layers):
        layer.register_forward_hook(
            lambda _module, _inputs, output, place=place: reached.append((place, output.requires_grad))
        )
    assert gradients(roles)
    assert {place for place, needs in reached if needs} == {LAYERS - 1}


def test_no_random_state_is_kept(base, monkeypatch):
    roles = roles_of(base)
    roles.activation_checkpointing_enable()
    monkeypatch.setattr("torch.utils.checkpoint.torch.get_rng_state", lambda: pytest.fail("kept a random state"))
    assert gradients(roles)


@pytest.mark.parametrize(
    ("keys", "models"),
    [({}, 1), ({"peft_method": "full"}, 2), ({"value_model": "model", "value_model_path": "BASE"}, 2)],
    ids=str,
)
def test_fsdp2_cuts_roles_at_every_layer_of_every_model(base, keys, models):
    roles = roles_of(base, **{key: str(base) if value == "BASE" else value for key, value in keys.items()})
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
    plugin.set_auto_wrap_policy(roles)
    is_unit = fsdp2_prepare_auto_wrap_policy(plugin, roles)
    assert sum(map(is_unit, roles.modules())) == models * LAYERS
