"""Rounds repeat the marked stages, each reading its own round's folders and the newest policy."""

import pytest
import yaml

from alignment.config import load_pipeline
from alignment.errors import RecipeError

JUDGE = {"kind": "rules", "function": "some.judge:prefer"}
RECIPES = {
    "label": {"model_name_or_path": "runs/x/sft", "datasets": [{"path": "runs/x/data/p.jsonl"}], "judge": JUDGE},
    "reward": {"model_name_or_path": "runs/x/sft", "datasets": [{"path": "runs/x/label/labels.jsonl"}]},
    "dpo": {"model_name_or_path": "runs/x/sft/", "datasets": [{"path": "runs/x/label/labels.jsonl"}]},
    "ppo": {
        "model_name_or_path": "runs/x/sft", "reward_model_path": "runs/x/reward", "total_episodes": 64,
        "datasets": [{"path": "runs/x/data/p.jsonl"}],
    },
    "evaluate": {
        "model_name_or_path": "runs/x/sft", "datasets": [{"path": "runs/x/data/h.jsonl"}], "judges": [JUDGE],
        "candidates": [
            {"name": "newest", "model_name_or_path": "runs/x/dpo"},
            {"name": "first", "model_name_or_path": "runs/x/dpo.round1"},
        ],
    },
}  # fmt: skip


def save(tmp_path, *names, rounds=3, marked=("label", "reward", "dpo", "ppo"), **changes):
    stages = []
    for name in names:
        recipe = {"stage": name, "output_dir": f"runs/x/{name}", **RECIPES[name], **changes.get(name, {})}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        stages.append({"name": name, "recipe": f"{name}.yaml"} | ({"each_round": True} if name in marked else {}))
    return write(tmp_path, stages, rounds)


def write(tmp_path, stages, rounds):
    whole = {"name": "x", "output_dir": "runs/x", "stages": stages} | ({} if rounds is None else {"rounds": rounds})
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
    return str(tmp_path / "pipeline.yaml")


def test_dpo_goes_on_from_the_policy_of_the_round_before(tmp_path):
    stages = load_pipeline(save(tmp_path, "label", "dpo", "evaluate")).stages
    assert [stage.name for stage in stages] == [
        "label.round1", "dpo.round1", "label.round2", "dpo.round2", "label.round3", "dpo.round3", "evaluate",
    ]  # fmt: skip
    label, dpo, *_ = stages
    assert (label.recipe.model_name_or_path, dpo.recipe.model_name_or_path) == ("runs/x/sft", "runs/x/sft/")
    for number in (2, 3):
        label, dpo = stages[2 * number - 2 : 2 * number]
        assert label.outputs == (f"runs/x/label.round{number}",)
        assert label.recipe.model_name_or_path == dpo.recipe.model_name_or_path == f"runs/x/dpo.round{number - 1}"
        assert [entry.path for entry in dpo.recipe.datasets] == [f"runs/x/label.round{number}/labels.jsonl"]
        assert (label.recipe.round, dpo.recipe.round) == (number, number)
        assert (label.recipe.seed, dpo.recipe.seed) == (42 + number - 1, 42)  # other chances where answers are sampled
        assert label.recipe.datasets[0].path == "runs/x/data/p.jsonl"
    evaluate = stages[-1].recipe
    assert [each.model_name_or_path for each in evaluate.candidates] == ["runs/x/dpo.round3", "runs/x/dpo.round1"]
    assert (evaluate.model_name_or_path, evaluate.round) == ("runs/x/sft", None)


def test_ppo_climbs_each_rounds_reward_model_which_begins_from_the_first_policy(tmp_path):
    path = save(tmp_path, "label", "reward", "ppo", rounds=2)
    stages = load_pipeline(path, "/other", seed=7).stages
    label, reward, ppo = (stage.recipe for stage in stages[3:])
    assert label.model_name_or_path == ppo.model_name_or_path == "/other/ppo.round1"
    assert reward.model_name_or_path == "/other/sft"
    assert reward.datasets[0].path == "/other/label.round2/labels.jsonl"
    assert ppo.reward_model_path == "/other/reward.round2"
    assert [recipe.seed for recipe in (label, reward, ppo)] == [8, 7, 8]
    assert "--round" in stages[0].arguments


def test_a_command_within_a_round_reads_and_writes_there(tmp_path):
    save(tmp_path, "label", "dpo")
    mix = {"name": "mix", "each_round": True, "command": ["mix", "runs/x/label", "--to=runs/x/mixed/all.jsonl"],
           "inputs": ["runs/x/label/labels.jsonl"], "outputs": ["runs/x/mixed"]}  # fmt: skip
    stages = [{"name": name, "recipe": f"{name}.yaml", "each_round": True} for name in ("label", "dpo")]
    second = load_pipeline(write(tmp_path, [stages[0], mix, stages[1]], 2)).stages[4]
    assert second.name == "mix.round2"
    assert second.arguments == ("mix", "runs/x/label.round2", "--to=runs/x/mixed.round2/all.jsonl")
    assert second.inputs == ("runs/x/label.round2/labels.jsonl",)
    assert second.outputs == ("runs/x/mixed.round2",)


def test_one_round_is_a_round_too(tmp_path):
    assert [s.name for s in load_pipeline(save(tmp_path, "label", "dpo", rounds=1)).stages] == [
        "label.round1",
        "dpo.round1",
    ]


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (("label", "dpo"), {"rounds": None}, r"stages\[0\].each_round: has no effect without rounds"),
        (("label", "dpo"), {"rounds": 0}, "rounds: must be greater than 0"),
        (("label", "dpo"), {"marked": ()}, "rounds: no stage has each_round: true; mark the stages that every round"),
        (
            ("label", "reward", "dpo"),
            {"marked": ("label", "dpo")},
            r"stages\[1\]: reward is between the stages of a round; mark it with each_round, or move it",
        ),
        (("label", "reward"), {}, "rounds: a round needs one stage that trains .*; found none"),
        (("label", "reward", "dpo", "ppo"), {}, "rounds: a round needs one stage .*; found dpo and ppo"),
        (
            ("label", "dpo"),
            {"dpo": {"model_name_or_path": "runs/x/other"}},
            r"stages\[0\]: samples from runs/x/sft, but dpo begins from runs/x/other; give both the same",
        ),
    ],
)  # fmt: skip
def test_faults(tmp_path, names, options, said):
    with pytest.raises(RecipeError, match=said):
        load_pipeline(save(tmp_path, *names, **options))


def test_names_that_a_round_would_take(tmp_path):
    save(tmp_path, "label", "dpo")
    stages = [{"name": name, "recipe": f"{name}.yaml", "each_round": True} for name in ("label", "dpo")]
    clash = {"name": "dpo.round2", "command": ["a"], "outputs": ["runs/x/b"]}
    with pytest.raises(RecipeError, match=r"dpo\.round2 is what round 2 calls it, and another stage's name"):
        load_pipeline(write(tmp_path, [*stages, clash], 2))
