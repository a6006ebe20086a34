"""PPO with every tuning method, and with roles of different types on one base."""

import itertools

import pytest
import torch
from peft import OFTConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from alignment.config.methods import TUNING_METHODS
from alignment.config.schema import ModelKeys
from alignment.policy.base import load_causal_lm
from tests.train.ppo_runs import make_trainer, trained_weights
from tests.train.test_ppo import KillAfter, Killed
from tests.tuned import FITTING, save_base

METHODS = [name for name, method in TUNING_METHODS.items() if method.family in ("generic", "lora", "soft_prompts")]
QUICK = ("dora", "ia3", "oft", "vera", "shira", "beft", "prompt_tuning", "p_tuning", "prefix_tuning")  # without -m slow
NOT_EXACT = {"deft": 1e-5, "hra": 1e-5, "osf": 1e-5}  # a new adapter rounds otherwise than the base alone
LINEAR = ["q_proj", "v_proj", "down_proj"]
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("models") / "base")


def killed_and_resumed(base, folder, **keys):
    """Run to the end; run once more, killed in the middle and resumed. Return both trainers."""
    given = {"updates": 2, "per_device": 8, "arguments": {"save_strategy": "steps", "save_steps": 3}, **keys}
    straight = make_trainer(base, folder / "straight", **given)
    straight.train()
    killed = make_trainer(base, folder / "killed", callbacks=[KillAfter(5)], **given)
    with pytest.raises(Killed):
        killed.train()
    torch.manual_seed(99)
    resumed = make_trainer(base, folder / "killed", **given)
    resumed.train(resume_from_checkpoint=str(folder / "killed" / "checkpoint-3"))
    return straight, resumed


@pytest.mark.parametrize("name", [name if name in QUICK else slow(name) for name in METHODS])
def test_a_killed_run_of_any_method_ends_with_the_same_bits(base, tmp_path, name):
    straight, resumed = killed_and_resumed(base, tmp_path, peft_method=name, peft_config=FITTING.get(name, {}))
    after = trained_weights(straight)
    assert all(torch.equal(weight, after[name]) for name, weight in trained_weights(resumed).items())
    assert abs(straight.state.log_history[0]["kl"]) <= NOT_EXACT.get(name, 0.0)
    roles = straight.roles
    of_value = {id(parameter) for parameter in roles.adapters["value"].trained}
    names = {each for each, parameter in roles.named_parameters() if id(parameter) in of_value}
    assert roles.value_parameters() == names | {"heads.value.weight"}
    assert roles.value_parameters() | roles.policy_parameters() == set(after)
    straight.save_model(str(tmp_path / "saved"))
    saved = load_causal_lm(ModelKeys(model_name_or_path=str(tmp_path / "saved")), trainable=False).eval()
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(saved(input_ids=ids).logits, roles.policy_lm(input_ids=ids).logits)


FROM_SFT = ("fishmask", "child_tuning_d")  # they choose their weights by examples, which PPO does not have
OWN = {"freeze": {"trainable_layers": 1}, "bottleneck": {"bottleneck_size": 4}, "adalora": {"init_r": 4, "target_r": 2}}


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        (name, bits) if (name, bits) == ("lora", 8) else slow(name, bits)
        for bits in (4, 8)
        for name, method in TUNING_METHODS.items()
        if method.allows_bits(bits) and method.has_adapter and name not in FROM_SFT
    ],
)
def test_a_killed_run_on_a_quantised_base_ends_with_the_same_bits(base, tmp_path, name, bits):
    shape = {**FITTING.get(name, {}), **OWN.get(name, {})}
    given = {"peft_method": name, "peft_config": shape, f"load_in_{bits}bit": True}
    straight, resumed = killed_and_resumed(base, tmp_path, **given)
    after = trained_weights(straight)
    assert all(torch.equal(weight, after[name]) for name, weight in trained_weights(resumed).items())
    assert abs(straight.state.log_history[0]["kl"]) <= 1e-6
    held = [type(p).__name__ for p in straight.roles.parameters()]
    assert {4: "Params4bit", 8: "Int8Params"}[bits] in held
    straight.save_model(str(tmp_path / "saved"))
    keys = ModelKeys(model_name_or_path=str(tmp_path / "saved"), **{f"load_in_{bits}bit": True})
    saved = load_causal_lm(keys, trainable=False).eval()
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(saved(input_ids=ids).logits, straight.roles.policy_lm(input_ids=ids).logits)


def reward_model(base, folder, config):
    torch.manual_seed(4)
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=0)
    get_peft_model(plain, config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("policy", "value"),
    [
        case if None in case or case in (("dora", "ia3"), ("prefix_tuning", "lora")) else slow(*case)
        for case in itertools.product(["dora", "miss", "prompt_tuning", "prefix_tuning"], [None, "ia3", "lora", "oft"])
    ],
)
def test_roles_of_different_types_train_on_one_base(base, tmp_path, policy, value):
    shape = {"task_type": "SEQ_CLS", "target_modules": LINEAR, "modules_to_save": ["score"]}
    scored = reward_model(base, tmp_path / "reward", OFTConfig(r=0, oft_block_size=8, **shape))
    straight, resumed = killed_and_resumed(base, tmp_path, peft_method=policy, value_peft_method=value, reward=scored)
    assert straight.state.log_history[0]["kl"] == 0.0
    after = trained_weights(straight)
    assert all(torch.equal(weight, after[name]) for name, weight in trained_weights(resumed).items())
    kinds = {role: adapter.config.peft_type.value for role, adapter in straight.roles.adapters.items()}
    assert kinds["reward"] == "OFT"
    assert kinds["value"] == {None: "OFT", "ia3": "IA3", "lora": "LORA", "oft": "OFT"}[value]
