"""GRPO, RLOO and PPO without a value, in the trainer: what is computed, resume, invariances, dynamic sampling."""

import dataclasses
import types
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignment.ops.advantages import EstimatorInput
from alignment.ops.group_advantages import dr_grpo, grpo, reinforce_plus_plus_baseline, rloo
from alignment.policy.role_files import save_policy
from alignment.policy.roles import Roles
from alignment.train.policy_gradient.dynamic_sampling import groups_that_differ
from alignment.train.policy_gradient.statistics import _groups
from tests.models import save_tiny_model
from tests.train.ppo_runs import make_trainer, trained_weights
from tests.train.test_estimators import require_equal_end, rows_of

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

GRPO = {"stage": "grpo", "num_generations": 4}
RLOO = {"stage": "rloo", "num_generations": 4}
ONE_STEP = {"num_mini_batches": 1}
METHODS = {
    "grpo": GRPO,
    "grpo-kl-two-passes": {**GRPO, "beta": 0.1, "num_iterations": 2, "loss_type": "grpo"},
    "gspo": {**GRPO, "importance_sampling_level": "sequence", "loss_type": "luspo"},
    "vespo": {**GRPO, "loss_type": "vespo"},
    "rloo": RLOO,
    **{
        f"ppo-{name}": {"advantage_estimator": name, "num_generations": 4}
        for name in ("grpo", "dr_grpo", "rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline")
    },
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("groups") / "base", initializer_range=0.3)


@pytest.mark.parametrize("name", METHODS)
def test_the_policy_moves_and_nothing_of_a_value_exists(base, tmp_path, monkeypatch, name):
    def forbidden(*_, **__):
        raise AssertionError("a value was computed")

    monkeypatch.setattr(Roles, "_answer_values", forbidden)
    trainer = make_trainer(base, tmp_path, per_device=4, **METHODS[name])
    before = trained_weights(trainer)
    assert not any("value" in parameter for parameter, _ in trainer.roles.named_parameters())
    trainer.train()
    after = trained_weights(trainer)
    assert all(not torch.equal(before[name], after[name]) for name in after if "lora_A" not in name)
    rows = rows_of(trainer)
    assert len(rows) == 3
    assert not [key for row in rows for key in row if "value" in key]
    assert all(0 <= row["frac_reward_zero_std"] <= 1 and row["entropy"] > 0 for row in rows)


def count_passes(trainer, monkeypatch):
    counts = {"policy": 0, "reference": 0}
    forward, reference = type(trainer.roles).forward, type(trainer.roles).reference_logp

    def counted_forward(self, *inputs, call="", **options):
        counts["policy"] += not call
        return forward(self, *inputs, **({"call": call} if call else {}), **options)

    def counted_reference(self, *inputs, **options):
        counts["reference"] += 1
        return reference(self, *inputs, **options)

    monkeypatch.setattr(type(trainer.roles), "forward", counted_forward)
    monkeypatch.setattr(type(trainer.roles), "reference_logp", counted_reference)
    return counts


@pytest.mark.parametrize(
    ("keys", "policy", "reference"),
    [
        ({**GRPO, **ONE_STEP}, 4, 0),  # the 4 microbatches of the update's one step
        ({**GRPO, **ONE_STEP, "beta": 0.1}, 4, 4),
        (GRPO, 8, 0),  # two steps: the second one's ratio needs the log-probabilities before the first
        ({**RLOO, **ONE_STEP}, 8, 4),  # the KL is part of the reward
        ({**RLOO, **ONE_STEP, "beta": 0.0}, 4, 0),
    ],
    ids=str,
)
def test_no_pass_is_made_that_the_update_does_not_need(base, tmp_path, monkeypatch, keys, policy, reference):
    trainer = make_trainer(base, tmp_path, per_device=4, updates=1, **keys)
    counts = count_passes(trainer, monkeypatch)
    trainer.train()
    assert counts == {"policy": policy, "reference": reference}


def test_one_step_equals_the_same_step_with_the_pass_before_it(base, tmp_path, monkeypatch):
    keys = {**GRPO, **ONE_STEP, "beta": 0.1, "per_device": 4, "updates": 2}
    plain = make_trainer(base, tmp_path / "a", **keys)
    plain.train()
    monkeypatch.setattr(type(plain), "_needs_old_logp", True)
    with_pass = make_trainer(base, tmp_path / "b", **keys)
    with_pass.train()
    ours, theirs = trained_weights(plain), trained_weights(with_pass)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for ours, theirs in zip(rows_of(plain), rows_of(with_pass), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_answers_to_one_prompt_are_compared(base, tmp_path):
    trainer = make_trainer(base, tmp_path, **GRPO)
    made = trainer.collect(0)
    scores = torch.tensor([trainer.processing_class.decode(ids).count("e") / 4 for ids in made.answer_ids])
    assert [made.prompt_ids[i] == made.prompt_ids[i - i % 4] for i in range(16)] == [True] * 16
    grouped = scores.view(4, 4)
    expected = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(made.advantages[:, 0], expected.flatten())


def saved_adapter(base, folder):
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(1)
    adapter = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(model, adapter).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("stage", ["grpo", "rloo"])
@pytest.mark.parametrize("method", ["full", "lora", "adapter", "prompt_tuning"])
def test_without_kl_no_reference_is_held_trained_or_saved(base, tmp_path, stage, method):
    saving = {"save_strategy": "steps", "save_steps": 1}
    start, keys = base, {"peft_method": "lora" if method == "adapter" else method}
    keys |= {"peft_config": {"num_virtual_tokens": 2}} if method == "prompt_tuning" else {}
    if method == "adapter":
        start, keys = saved_adapter(base, tmp_path / "sft"), {"lora_target_modules": ["q_proj"]}
    held = {}
    for beta in (0.0, 0.1):
        out = tmp_path / str(beta)
        trainer = make_trainer(
            start, out, stage=stage, num_generations=4, beta=beta, arguments=saving, updates=1, per_device=4, **keys
        )
        held[beta] = sum(parameter.numel() for parameter in trainer.roles.parameters())
        assert "reference" not in trainer.roles.adapters or beta > 0
        before = trained_weights(trainer)
        trainer.train()
        moved = [name for name, old in before.items() if not torch.equal(old, trained_weights(trainer)[name])]
        assert len(moved) >= len(before) / 2
    plain = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_pretrained(base).parameters())
    assert held[0.0] == (plain if method == "full" else plain + sum(each.numel() for each in before.values()))
    if method != "lora":  # whose reference is the base
        assert held[0.1] > held[0.0]
    names = {name for file in (tmp_path / "0.0").rglob("*.safetensors") for name in load_file(file)}
    assert names
    assert not [name for name in names if "reference" in name or "value" in name]


@pytest.mark.parametrize("stage", ["grpo", "rloo"])
def test_a_policy_trained_whole_without_kl_resumes_to_the_same_bits_and_loads_plainly(base, tmp_path, stage):
    saving = {"save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-3}
    keys = {"updates": 3, "per_device": 4, "arguments": saving, "peft_method": "full", "beta": 0.0}
    require_equal_end(base, tmp_path, killed_at=4, checkpoint=3, stage=stage, num_generations=4, **keys)


def test_a_policy_trained_whole_without_kl_equals_one_beside_a_base(base, tmp_path, monkeypatch):
    keys = {**GRPO, "peft_method": "full", "updates": 2, "per_device": 4, "arguments": {"learning_rate": 1e-3}}
    alone = make_trainer(base, tmp_path / "a", **keys)
    alone.train()
    monkeypatch.setattr("alignment.policy.load_roles.needs_base", lambda *_: True)
    beside = make_trainer(base, tmp_path / "b", **keys)
    beside.train()
    ours, theirs = dict(alone.roles.base.named_parameters()), dict(beside.roles.policy_model.named_parameters())
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for trainer in (alone, beside):
        save_policy(trainer.roles, trainer.args.output_dir / Path("policy"))
    saved = [load_file(tmp_path / which / "policy" / "model.safetensors") for which in "ab"]
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[1])


@pytest.mark.parametrize("name", ["grpo-kl-two-passes", "gspo", "rloo"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_killed_run_ends_with_the_same_bits(base, tmp_path, name, dynamic):
    saving = {"save_strategy": "steps", "save_steps": 1}
    keys = {"updates": 4, "per_device": 4, "arguments": saving, "dynamic_sampling": dynamic, **METHODS[name]}
    require_equal_end(base, tmp_path, killed_at=6, checkpoint=5, **keys)


@pytest.mark.parametrize("name", METHODS)
def test_the_microbatch_size_changes_nothing(base, tmp_path, name):
    keys = {**METHODS[name], "updates": 1, "arguments": {"optim": "sgd", "learning_rate": 0.1}}
    ends = []
    for size in (8, 1):
        trainer = make_trainer(base, tmp_path / str(size), per_device=size, **keys)
        trainer.train()
        ends.append(trained_weights(trainer))
    for name in ends[0]:
        torch.testing.assert_close(ends[0][name], ends[1][name], rtol=0, atol=2e-5)


class ByPrompt:
    """Scores that are equal in the groups of every prompt with an even number, and differ in the others."""

    def __init__(self):
        self.calls = 0

    def score(self, prompts, answers, *, stopped):
        self.calls += 1
        numbers = [int(prompt.split()[-1]) for prompt in prompts]
        return [number % 2 * (row % 4) / 4 for row, number in enumerate(numbers)]


def test_dynamic_sampling_replaces_groups_with_equal_scores(base, tmp_path):
    scorer = ByPrompt()
    trainer = make_trainer(base, tmp_path, scorer=scorer, dynamic_sampling=True, **GRPO)
    made = trainer.collect(0)
    assert scorer.calls > 1
    assert trainer.metrics["rollouts_sampled"] == scorer.calls
    assert 0 < trainer.metrics["frac_reward_zero_std"] < 1
    assert bool((made.advantages[:, 0].view(4, 4).abs().sum(1) > 0).all())
    prompts = [trainer.processing_class.decode(ids) for ids in made.prompt_ids]
    assert prompts == [prompts[row - row % 4] for row in range(16)]


def test_after_the_last_rollout_groups_with_equal_scores_fill_the_batch(base, tmp_path):
    class Equal:
        def score(self, prompts, answers, *, stopped):
            return [1.0] * len(answers)

    keys = {"dynamic_sampling": True, "dynamic_sampling_max_rounds": 3, **GRPO}
    trainer = make_trainer(base, tmp_path, scorer=Equal(), **keys)
    made = trainer.collect(0)
    assert (trainer.metrics["rollouts_sampled"], trainer.metrics["frac_reward_zero_std"]) == (3, 1)
    assert len(made.answer_ids) == 16
    assert float(made.advantages.abs().max()) == 0


def test_groups_that_differ():
    assert groups_that_differ(torch.tensor([1.0, 1.0, 0.0, 1.0, 2.0, 2.0]), torch.ones(6, dtype=torch.bool), 2) == [
        2,
        3,
    ]


def test_a_bandit_finds_the_best_answer(base, tmp_path):
    """Answers of one token, scored by whether it is one of a tenth of the vocabulary: the optimum is 1."""

    class Wanted:
        def score(self, prompts, answers, *, stopped):
            return [float("e" in answer) for answer in answers]

    for name in ("grpo", "rloo"):
        keys = {**METHODS[name], "updates": 30, "max_new_tokens": 3, "rollout_batch_size": 32, "beta": 0.0}
        keys |= {"prompts": ["tell me"], "arguments": {"learning_rate": 3e-2}, "num_generations": 16}
        trainer = make_trainer(base, tmp_path / name, scorer=Wanted(), many_stops=False, **keys)
        trainer.train()
        scores = [row["score"] for row in rows_of(trainer)]
        assert scores[0] < 0.5
        assert sum(scores[-3:]) / 3 > 0.9


@pytest.mark.parametrize("score", [0.1, 0.7, 7.3, 1000.1])
@pytest.mark.parametrize("size", [3, 7, 8, 16])
@pytest.mark.parametrize("estimator", [grpo, dr_grpo, rloo, reinforce_plus_plus_baseline])
def test_equal_rewards_have_no_advantage(estimator, score, size):
    """A float32 mean of equal numbers may differ from them."""
    rewards = torch.zeros(size, 2)
    rewards[:, 1] = score
    batch = EstimatorInput(rewards, torch.ones(size, 2, dtype=torch.bool), [0] * size)
    assert float(estimator(batch).advantages.abs().max()) == 0


def test_equal_rewards_are_counted_whatever_their_size():
    found = _groups(types.SimpleNamespace(groups=[0] * 8), torch.full((8,), 7.3))
    assert found == {"group_reward_std": 0.0, "frac_reward_zero_std": 1.0}


class EqualScores:
    def score(self, prompts, answers, *, stopped):
        return [1.0] * len(answers)


def test_dynamic_sampling_compares_rewards_not_scores(base, tmp_path):
    keys = {"dynamic_sampling": True, "missing_eos_penalty": 1.0, "max_new_tokens": 3, **GRPO}
    trainer = make_trainer(base, tmp_path, scorer=EqualScores(), **keys)
    made = trainer.collect(0)
    assert 0 < trainer.metrics["fraction_stopped"] < 1
    assert trainer.metrics["frac_reward_zero_std"] < 1
    assert float(made.advantages.abs().max()) > 0


def test_masked_groups_are_not_counted_as_groups_with_equal_rewards(base, tmp_path):
    """Rewards that differ: every group is replaced for its truncated answers, none for equal rewards."""

    class Different:
        def score(self, prompts, answers, *, stopped):
            return [float(row) for row in range(len(answers))]

    keys = {"dynamic_sampling": True, "dynamic_sampling_max_rounds": 2, "mask_truncated_completions": True, **GRPO}
    trainer = make_trainer(base, tmp_path, scorer=Different(), many_stops=False, **{**keys, "max_new_tokens": 1})
    trainer.collect(0)
    metrics = trainer.metrics
    assert metrics["fraction_stopped"] == 0
    assert (metrics["frac_reward_zero_std"], metrics["frac_groups_masked"], metrics["rollouts_sampled"]) == (0, 1, 2)


def test_equal_groups_of_all_rollouts_are_counted(base, tmp_path):
    """Each rollout of four groups: first all equal, then one equal, so 5 of 8."""

    class Later:
        calls = 0

        def score(self, prompts, answers, *, stopped):
            self.calls += 1
            return [float(self.calls > 1 and row >= 4) * row for row in range(len(answers))]

    keys = {"dynamic_sampling": True, "dynamic_sampling_max_rounds": 2, **GRPO}
    trainer = make_trainer(base, tmp_path, scorer=Later(), **keys)
    trainer.collect(0)
    assert trainer.metrics["frac_reward_zero_std"] == 5 / 8
    assert "frac_groups_masked" not in trainer.metrics


def test_a_group_of_masked_answers_is_replaced():
    rewards, trains = torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([False, False, True, False])
    assert groups_that_differ(rewards, trains, 2) == [2, 3]


@pytest.mark.parametrize("loss_type", ["dapo", "cispo", "vespo", "grpo"])
def test_a_rollout_of_masked_answers_alone_has_loss_zero(base, tmp_path, loss_type):
    keys = {**GRPO, **ONE_STEP, "loss_type": loss_type, "mask_truncated_completions": True}
    keys |= {"epsilon_high": 5.0} if loss_type == "cispo" else {}
    settings = {"logging_nan_inf_filter": False}
    trainer = make_trainer(base, tmp_path, updates=1, per_device=8, many_stops=False, arguments=settings, **keys)
    generate = trainer.engine.generate
    trainer.engine.generate = lambda ids, s: generate(ids, dataclasses.replace(s, stop_token_ids=[]))
    trainer.train()
    assert [row["loss"] for row in rows_of(trainer)] == [0.0]


def test_a_masked_answer_has_no_kl_in_its_reward(base, tmp_path):
    keys = {**RLOO, "beta": 0.5, "mask_truncated_completions": True, "max_new_tokens": 3}
    trainer = make_trainer(base, tmp_path, scorer=EqualScores(), **keys)
    rollout = trainer.sample(0)
    scored = trainer.score(rollout)
    outputs = trainer.compute_role_outputs(rollout)
    outputs.ref_logp = outputs.logp - 1.0  # a KL of one nat a token
    made = trainer.make_experience(rollout, outputs, scored.total)
    kl = (rollout.mask & rollout.stopped.unsqueeze(1)).sum(1).float()
    rewards = (scored.total - 0.5 * kl).view(-1, 4)
    expected = rewards - (rewards.sum(1, keepdim=True) - rewards) / 3
    assert not bool(rollout.stopped.all())
    torch.testing.assert_close(made.advantages[:, 0], expected.flatten())
