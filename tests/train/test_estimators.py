"""A new advantage estimator is one function and one line; without a value, nothing of a value exists."""

import pytest
import torch
from safetensors.torch import load_file

from alignment.config import load_recipe
from alignment.config.estimators import ADVANTAGE_ESTIMATORS, EstimatorEntry
from alignment.errors import RecipeError
from alignment.ops.advantages import Estimate, EstimatorInput, advantages_and_returns, gae_estimator
from alignment.ops.masking import whiten
from alignment.planner.hours import time_of
from alignment.planner.machine import Machine
from alignment.planner.memory import plan_stage
from alignment.policy.roles import Roles
from tests.models import save_tiny_model
from tests.train.ppo_runs import make_trainer, trained_weights
from tests.train.test_ppo import KillAfter, Killed

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def discounted(batch: EstimatorInput, *, gamma: float) -> Estimate:
    """The dummy estimator: each token's discounted rewards to come, minus the mean of its group's first ones."""
    to_come = torch.zeros_like(batch.rewards)
    following = torch.zeros(len(batch.rewards))
    for t in reversed(range(batch.rewards.shape[1])):
        following = torch.where(batch.mask[:, t], batch.rewards[:, t] + gamma * following, following)
        to_come[:, t] = following
    groups = torch.tensor(batch.groups)
    baseline = torch.stack([to_come[groups == group, 0].mean() for group in groups])
    return Estimate(torch.where(batch.mask, to_come - baseline.unsqueeze(-1), 0.0))


@pytest.fixture
def registered(monkeypatch):
    """The dummy estimator's registration, its one line outside its own file."""
    entry = EstimatorEntry("tests.train.test_estimators:discounted", uses_value=False)
    monkeypatch.setitem(ADVANTAGE_ESTIMATORS, "discounted", entry)
    return {"advantage_estimator": "discounted"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("estimators") / "base", initializer_range=0.3)


def rows_of(trainer):
    timed = ("seconds", "tokens_per_second", "peak_memory", "train_")
    rows = [entry for entry in trainer.state.log_history if "score" in entry]
    return [{key: value for key, value in row.items() if not key.startswith(timed)} for row in rows]


def require_equal_end(base, tmp_path, *, killed_at, checkpoint, **keys):
    """Run straight, and killed after a step and resumed; both end with the same weights and numbers."""
    straight = make_trainer(base, tmp_path / "straight", **keys)
    straight.train()
    killed = make_trainer(base, tmp_path / "killed", callbacks=[KillAfter(killed_at)], **keys)
    with pytest.raises(Killed):
        killed.train()
    torch.manual_seed(999)
    resumed = make_trainer(base, tmp_path / "killed", **keys)
    resumed.train(resume_from_checkpoint=str(tmp_path / "killed" / f"checkpoint-{checkpoint}"))
    ours, theirs = trained_weights(resumed), trained_weights(straight)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert rows_of(resumed)[-1] == rows_of(straight)[-1]


@pytest.mark.parametrize("keys", [{}, {"peft_method": "full"}], ids=str)
def test_an_estimator_without_a_value_trains_the_policy_alone(base, tmp_path, registered, monkeypatch, keys):
    def forbidden(*_, **__):
        raise AssertionError("a value was computed")

    monkeypatch.setattr(Roles, "_answer_values", forbidden)
    monkeypatch.setattr(Roles, "last_values", forbidden)
    saving = {"save_strategy": "steps", "save_steps": 6}
    trainer = make_trainer(base, tmp_path, per_device=4, arguments=saving, **registered, **keys)
    before = trained_weights(trainer)
    assert not any("value" in name for name, _ in trainer.roles.named_parameters())
    trainer.train()
    after = trained_weights(trainer)
    assert all(not torch.equal(before[name], after[name]) for name in after if "lora_A" not in name)
    rows = rows_of(trainer)
    assert len(rows) == 3
    assert not [key for row in rows for key in row if "value" in key or key in ("return_mean", "explained_variance")]
    own = {name for name in after if not name.startswith("policy_model.")}
    for file in [tmp_path / "checkpoint-6" / "trained.safetensors"] if own else []:
        assert load_file(file).keys() == own
    assert own or not list(tmp_path.rglob("trained.safetensors"))
    state = torch.load(tmp_path / "checkpoint-6" / "experience.pt", weights_only=True)
    assert state["stream"]["experience"]["values"] is None
    assert state["stream"]["experience"]["returns"] is None


def test_the_advantages_are_those_of_the_function_with_the_recipes_keys(base, tmp_path, registered):
    trainer = make_trainer(base, tmp_path, kl_coef=0.0, gamma=0.5, whiten_advantages=False, **registered)
    experience = trainer.collect(0)
    scores = [trainer.processing_class.decode(ids).count("e") / 4 for ids in experience.answer_ids]
    prompts = [tuple(ids) for ids in experience.prompt_ids]
    # without a KL penalty the rewards to come from token t of n are the score times 0.5 ** (n - 1 - t)
    first = [score * 0.5 ** (len(ids) - 1) for score, ids in zip(scores, experience.answer_ids, strict=True)]
    for row, ids in enumerate(experience.answer_ids):
        group = [first[other] for other in range(16) if prompts[other] == prompts[row]]
        for t in range(len(ids)):
            expected = scores[row] * 0.5 ** (len(ids) - 1 - t) - sum(group) / len(group)
            assert float(experience.advantages[row, t]) == pytest.approx(expected, abs=1e-6)


def test_a_killed_run_without_a_value_ends_with_the_same_bits(base, tmp_path, registered):
    keys = {"updates": 3, "per_device": 4, "arguments": {"save_strategy": "steps", "save_steps": 3}, **registered}
    require_equal_end(base, tmp_path, killed_at=8, checkpoint=6, **keys)


def test_gae_is_the_default(base, tmp_path):
    trainer = make_trainer(base, tmp_path, whiten_advantages=False, kl_coef=0.0)
    torch.nn.init.normal_(trainer.roles.heads["value"].weight)
    made = trainer.collect(0)
    rewards = torch.zeros(made.mask.shape)
    for row, ids in enumerate(made.answer_ids):
        rewards[row, len(ids) - 1] = trainer.processing_class.decode(ids).count("e") / 4
    numbers = {"gamma": 1.0, "lam": 0.95, "lam_value": 1.0}
    advantages, returns = advantages_and_returns(rewards, made.values, made.mask, **numbers)
    assert torch.equal(made.advantages, advantages)
    assert torch.equal(made.returns, returns)
    batch = EstimatorInput(rewards, made.mask, list(range(16)), made.values)
    assert torch.equal(whiten(gae_estimator(batch, **numbers).advantages, made.mask), whiten(advantages, made.mask))


def recipe(base, tmp_path, *argv):
    file = tmp_path / "ppo.yaml"
    file.write_text(
        f"stage: ppo\nmodel_name_or_path: {base}\noutput_dir: {tmp_path / 'out'}\nreward_model_path: {base}\n"
        "datasets: [{path: prompts.jsonl}]\ntotal_episodes: 128\nmax_new_tokens: 8\n"
    )
    return load_recipe("ppo", ["--config", str(file), *argv])


def test_recipe_and_plan_know_the_estimator_by_its_registration(base, tmp_path, registered):
    machine = Machine(gpu=False)
    with_value, without = (
        recipe(base, tmp_path, *argv) for argv in ([], ["--advantage_estimator", "discounted"])
    )  # fmt: skip
    assert (with_value.value, without.value) == (with_value, None)
    plans = [plan_stage(each, machine) for each in (with_value, without)]
    assert plans[1].trainable < 0.6 * plans[0].trainable
    assert plans[1].peak.total < plans[0].peak.total
    times = [time_of(plan, None) for plan in plans]
    assert times[0].tokens - times[1].tokens == 128 * plans[0].lengths.whole  # the value's pass over 128 answers
    assert times[1].flops < times[0].flops


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--advantage_estimator", "gea"], "; did you mean gae?"),
        (["--advantage_estimator", "discounted", "--value_model", "head"], "value_model: has no effect with"),
        (["--advantage_estimator", "discounted", "--vf_coef", "0.5"], "which uses no value; take it out"),
    ],
)
def test_unknown_names_and_keys_of_a_value_are_refused(base, tmp_path, registered, given, message):
    with pytest.raises(RecipeError) as refused:
        recipe(base, tmp_path, *given)
    assert message in str(refused.value)
    assert len(refused.value.faults) == 1
