"""Roles that share the layers below their adapters train as they do without sharing, and compute these layers once."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from alignment.errors import ModelError
from alignment.policy.trunk import trunk_below
from tests.models import save_tiny_model
from tests.train.ppo_runs import make_trainer, trained_weights
from tests.train.test_ppo import KillAfter, Killed

pytestmark = pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing`:FutureWarning")
LAYERS = 4
SHAPE = {"task_type": "SEQ_CLS", "target_modules": ["q_proj", "v_proj"], "modules_to_save": ["score"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("models") / "base", num_hidden_layers=LAYERS)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Of widths that every CPU holds right in 4 bits."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "wide", num_hidden_layers=LAYERS, hidden_size=64)


@pytest.fixture(scope="module")
def reward(base):
    return save_reward(base, base.parent / "reward", layers_to_transform=[2, 3])


def save_reward(base, folder, **layers):
    torch.manual_seed(4)
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=0)
    model = get_peft_model(plain, LoraConfig(r=2, init_lora_weights=False, **SHAPE, **layers))
    model.save_pretrained(folder)
    return folder


def run(base, folder, arguments=None, **keys):
    arguments = {
        "optim": "sgd",
        "learning_rate": 0.3,
        **(arguments or {}),
    }  # Adam magnifies gradients that are rounding
    trainer = make_trainer(
        base, folder, arguments=arguments, **{"updates": 10, "per_device": 4, "lora_layers": 2, **keys}
    )
    trainer.train()
    return trainer


CASES = {
    "value adapter": {},
    "value head": {"value_model": "head"},
    "one reward role": {"reward": True},
    "grpo": {"stage": "grpo", "num_generations": 4, "beta": 0.1},
    "freeze": {"peft_method": "freeze", "peft_config": {"trainable_layers": 2}, "lora_layers": None,
               "value_peft_method": "freeze"},
    "dynamic sampling": {"stage": "grpo", "num_generations": 4, "dynamic_sampling": True},
    "checkpointing": {"arguments": {"gradient_checkpointing": True}},
    "nf4": {"load_in_4bit": True},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_training_equals_training_without_sharing(base, wide, reward, tmp_path, case):
    keys = dict(CASES[case])
    base = wide if keys.get("load_in_4bit") else base
    if keys.pop("reward", False):
        keys["reward"] = reward
    shared, alone = (run(base, tmp_path / str(share), share_trunk=share, **keys) for share in (True, False))
    assert shared.shares_trunk
    assert not alone.shares_trunk
    assert shared.roles.trunk.depth == 2
    logged = [[entry for entry in each.state.log_history if "score" in entry] for each in (shared, alone)]
    for ours, theirs in zip(*logged, strict=True):
        for name in ("score", "kl", "loss", "answer_tokens"):
            if name in theirs:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-5), name
    start = make_trainer(base, tmp_path / "start", **{"lora_layers": 2, **keys})
    ours, theirs, before = (
        torch.cat([w.flatten() for w in trained_weights(t).values()]) for t in (shared, alone, start)
    )
    assert (ours - theirs).norm() <= 1e-3 * (theirs - before).norm()


def passes(trainer):
    """Count the passes of each layer outside sampling."""
    counted = [0] * LAYERS

    def count(number):
        def hook(_module, _inputs, output):
            counted[number] += output.shape[1] > 1 and not trainer.sampling

        return hook

    for number, layer in enumerate(trainer.roles.base.model.layers):
        layer.register_forward_hook(count(number))
    return counted


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_rollout_computes_the_trunk_once(base, reward, tmp_path, epochs):
    keys = {"updates": 2, "per_device": 4, "lora_layers": 2, "num_ppo_epochs": epochs, "reward": reward}
    trainer = make_trainer(base, tmp_path, **keys)
    trainer.sampling = False
    generate = trainer.engine.generate

    def watched(*inputs):
        trainer.sampling = True
        try:
            return generate(*inputs)
        finally:
            trainer.sampling = False

    trainer.engine.generate = watched
    assert trainer.shares_trunk
    trainer.canary = None  # its check of the engine is a pass of its own
    ids = torch.arange(8).view(1, 8)
    trainer.roles.reference_logp(ids, ids > 4, temperature=1.0)  # finds what the model does to its logits, by passes
    counted = passes(trainer)
    trainer.train()
    microbatches = 2 * 4
    roles = 4  # policy, value, reference, reward
    assert counted == [microbatches, microbatches, *[microbatches * (roles + 2 * epochs)] * 2]


@pytest.mark.parametrize("save_steps", [1, 3], ids=["in the first epoch", "in the second epoch"])
def test_a_killed_run_ends_with_the_same_bits(base, reward, tmp_path, save_steps):
    arguments = {"save_strategy": "steps", "save_steps": save_steps}
    keys = {"updates": 2, "per_device": 4, "lora_layers": 2, "reward": reward, "arguments": arguments}
    straight = make_trainer(base, tmp_path / "straight", **keys)
    straight.train()
    killed = make_trainer(base, tmp_path / "killed", callbacks=[KillAfter(save_steps + 1)], **keys)
    with pytest.raises(Killed):
        killed.train()
    resumed = make_trainer(base, tmp_path / "killed", **keys)
    resumed.train(resume_from_checkpoint=str(tmp_path / "killed" / f"checkpoint-{save_steps}"))
    assert resumed.shares_trunk
    after = trained_weights(straight)
    assert all(torch.equal(weight, after[name]) for name, weight in trained_weights(resumed).items())


def test_an_adapter_below_the_chosen_layers_is_refused_with_its_role(base, tmp_path):
    low = save_reward(base, tmp_path / "reward")
    told = (
        r"lora_layers is 2 of 4, and the adapter of the reward begins at layer 0.*Train the reward model with the same"
    )
    with pytest.raises(ModelError, match=told):
        make_trainer(base, tmp_path / "run", lora_layers=2, reward=low)
    trainer = make_trainer(base, tmp_path / "run", lora_layers=2, reward=low, share_trunk=False)
    assert not trainer.shares_trunk
    with pytest.raises(ModelError, match=r"lora_layers is 5; the model has 4 layers\. Give 1 to 4"):
        make_trainer(base, tmp_path / "run", lora_layers=5)


@pytest.mark.parametrize("beta", [0.0, 0.1], ids=["the base itself trains", "a copy of the base trains"])
def test_a_policy_that_trains_whole_shares_nothing(base, tmp_path, beta):
    trainer = run(
        base, tmp_path, peft_method="full", updates=1, lora_layers=None, stage="grpo", num_generations=4, beta=beta
    )
    assert not trainer.shares_trunk
    assert trainer.roles.base_trains == (beta == 0.0)


def test_a_weight_of_the_base_that_trains_leaves_no_trunk(base, tmp_path):
    trainer = make_trainer(base, tmp_path, lora_layers=2)
    assert trunk_below(trainer.roles.switched).depth == 2
    trainer.roles.base.model.layers[0].mlp.up_proj.weight.requires_grad_(True)
    assert trunk_below(trainer.roles.switched) is None
