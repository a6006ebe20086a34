"""Watching scorers are logged, asked when due, and change nothing of the training."""

import contextlib
import random

import numpy
import pytest
import torch
from safetensors.torch import load_file

from alignment.config import load_recipe
from alignment.errors import RecipeError
from alignment.train.policy_gradient.monitoring import Monitor, preserve_random_state
from alignment.train.policy_gradient.scoring import ScorePart, Scoring
from tests.train.ppo_runs import CountE, make_trainer, trained_weights
from tests.train.test_ppo import KillAfter, Killed
from tests.train.test_ppo_scorers import folder, run_ppo

__all__ = ["folder"]  # a fixture
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
seen = []


def restless(prompts, answers):
    """Draws from every generator that a run could draw from."""
    seen.append(len(answers))
    random.seed(1)
    numpy.random.seed(2)
    return [random.random() + numpy.random.rand() + torch.rand(1).item() + len(answer) for answer in answers]


class Restless:
    def score(self, prompts, answers, *, stopped):
        return restless(prompts, answers)


def logged(trainer):
    return [row for row in trainer.state.log_history if "score" in row]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_is_the_same_to_the_bit(tmp_path, tiny_model_dir, method):
    found = []
    for watch in (None, Monitor(Scoring((ScorePart((Restless(),), name="r"),)), 1, 3)):
        trainer = make_trainer(tiny_model_dir, tmp_path / "run", scorer=CountE(), monitor=watch, peft_method=method)
        trainer.train()
        rows = [{k: v for k, v in row.items() if "seconds" not in k and "watch" not in k} for row in logged(trainer)]
        random_state = torch.get_rng_state()
        found.append((trained_weights(trainer), [{k: v for k, v in r.items() if "memory" not in k and k not in
                      ("tokens_per_second",)} for r in rows], random_state))  # fmt: skip
    (weights, rows, state), (watched, watched_rows, watched_state) = found
    assert all(torch.equal(weights[name], watched[name]) for name in weights)
    assert rows == watched_rows
    assert torch.equal(state, watched_state)


@pytest.mark.parametrize(("save_steps", "killed_at"), [(8, 9), (3, 8)], ids=["between", "amid"])
def test_a_killed_run_that_is_watched_ends_with_the_same_bits(tmp_path, tiny_model_dir, save_steps, killed_at):
    saving = {"save_strategy": "steps", "save_steps": save_steps}
    watch = Monitor(Scoring((ScorePart((Restless(),), name="r"), ScorePart((CountE(),), name="e"))), 2, 4)

    def trainer(name, **more):
        return make_trainer(
            tiny_model_dir, tmp_path / name, scorer=CountE(), monitor=watch, updates=4, per_device=4, arguments=saving,
            normalize_scores="running", **more,
        )  # fmt: skip

    straight, killed = trainer("straight"), trainer("killed", callbacks=[KillAfter(killed_at)])
    straight.train()
    with pytest.raises(Killed):
        killed.train()
    torch.manual_seed(999)
    resumed = trainer("killed")
    last = killed_at - 1 - (killed_at - 1) % save_steps
    resumed.train(resume_from_checkpoint=str(tmp_path / "killed" / f"checkpoint-{last}"))
    weights = [trained_weights(each) for each in (straight, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    watched = [[row.get("watch_e") for row in logged(each)] for each in (straight, resumed)]
    assert watched[0] == watched[1]
    assert [value is not None for value in watched[0]] == [True, False, True, True]


def test_it_is_asked_when_due_and_at_the_end(tmp_path, tiny_model_dir):
    watch = Monitor(Scoring((ScorePart((CountE(),), name="e", weight=7.0),)), 2, 4)
    trainer = make_trainer(tiny_model_dir, tmp_path / "run", scorer=CountE(), monitor=watch, updates=4)
    trainer.train()
    rows = logged(trainer)
    assert ["watch_e" in row for row in rows] == [True, False, True, True]
    for row in rows:
        if "watch_e" in row:  # the same scorer, so the same numbers, and its weight plays no part
            assert (row["watch_e"], row["watch_e_spread"]) == (row["score"], row["score_std"])
    assert all(row["seconds_train"] > 0 for row in rows)


def test_randomness_is_given_back_even_after_an_error():
    random.seed(7)
    numpy.random.seed(7)
    torch.manual_seed(7)
    expected = random.random(), numpy.random.rand(), torch.rand(1)
    random.seed(7)
    numpy.random.seed(7)
    torch.manual_seed(7)
    with contextlib.suppress(ValueError), preserve_random_state():
        restless([], ["a"])
        raise ValueError
    assert (random.random(), numpy.random.rand(), torch.rand(1)) == expected


def test_the_stage_watches_with_a_model_and_a_function_and_trains_the_same(folder, tmp_path):
    reward = [{"kind": "reward_model", "model_name_or_path": str(folder / "reward0")}]
    watch = [
        {"kind": "reward_model", "model_name_or_path": str(folder / "reward1"), "name": "second"},
        {"kind": "function", "function": f"{__name__}:restless", "name": "gold"},
    ]
    run_ppo(folder, tmp_path / "alone", reward)
    seen.clear()
    manifest, rows, _ = run_ppo(folder, tmp_path / "watched", reward, watch_scorers=watch, watch_interval=1)
    assert seen == [2, 8, 8]  # two answers to try the function, then each update's
    assert all({"watch_second", "watch_gold", "watch_gold_spread"} <= row.keys() for row in rows)
    assert not any("watch" in key for row in rows for key in row if key.startswith("score"))
    assert [entry["name"] for entry in manifest["watch_scorers"]] == ["second", "gold"]
    weights = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("alone", "watched")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


RECIPE = """\
stage: ppo
output_dir: x
model_name_or_path: y
datasets: [{path: z}]
total_episodes: 64
reward_model_path: runs/reward
"""


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("watch_interval: 4\n", "watch_interval: has no effect without watch_scorers"),
        ("watch_scorers: [{kind: http}]\n", r"watch_scorers\[0\]: a scorer of kind http needs url"),
        (
            "watch_scorers: [{kind: function, function: 'a:b', weight: 2}]\n",
            r"watch_scorers\[0\].weight: has no effect: what watches is never in the reward",
        ),
        (
            "watch_scorers: [{kind: reward_model, model_name_or_path: runs/reward}]\n",
            r"watch_scorers\[0\]: runs/reward is in the reward too; only a scorer that is not trained on",
        ),
        (
            "watch_scorers: [{kind: function, function: 'a:b'}, {kind: function, function: 'a:c'}]\n",
            r"watch_scorers\[1\]: is called function, as watch_scorers\[0\] is; give it a name of its own",
        ),
        (
            "watch_scorers: [{kind: function, function: 'a:b', name: x_spread}]\n",
            "which means a spread; choose another",
        ),
        ("max_calls: 5\n", "max_calls: limits the calls of judges, and no scorer is of kind judge"),
        (
            "max_cost: 5\nwatch_scorers: [{kind: judge, judge: {kind: openai, model: a}}]\n",
            "max_cost: needs judge.prices",
        ),
    ],
)
def test_faults(tmp_path, lines, said):
    (tmp_path / "ppo.yaml").write_text(RECIPE + lines)
    with pytest.raises(RecipeError, match=said):
        load_recipe("ppo", ["--config", str(tmp_path / "ppo.yaml")])
