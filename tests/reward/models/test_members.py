"""Ensembles by seed: trained in one go, resumed, measured together and used everywhere."""

import json
from pathlib import Path

import pytest
import torch

from alignment.config import load_recipe
from alignment.config.schema import PPORecipe
from alignment.data import load_rankings, load_split
from alignment.errors import ModelError, RecipeError
from recipes import reward as stage
from reward.models.ensemble import Ensemble
from reward.models.score_file import score_file
from reward.models.scoring import RewardScorer
from reward.scorers import build_scoring, reward_models, score_entries
from tests.reward.models.test_scoring import toy_answers, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    return train(tmp_path_factory.mktemp("members"), tiny_model_dir, "lora", "--num_members", "3")


def manifest_of(run: Path) -> dict:
    return json.loads((run / "manifest.json").read_text())


def test_members_differ_by_seed_and_hold_out_the_same_prompts(run: Path) -> None:
    manifest, members = manifest_of(run), [manifest_of(run / f"member-{place}") for place in range(3)]
    assert manifest["status"] == "finished"
    assert manifest["members"] == ["member-0", "member-1", "member-2"]
    assert [member["seed"] for member in members] == [42, 43, 44]
    assert len({member["results"]["reward_nll"] for member in members}) == 3
    config = str(run.parent / "reward.yaml")
    held_out = []
    for words in ([], ["--seed", "43"]):
        recipe = load_recipe("reward", ["--config", config, *words])
        held_out.append({str(row.prompt) for row in load_split(load_rankings, recipe, recipe.seed).held_out})
    assert held_out[0] != held_out[1]  # a stage of its own with seed 43 would hold out others
    assert {member["evaluation"]["pairs"] for member in members} == {members[0]["evaluation"]["pairs"]}


def test_the_mean_of_the_members_is_measured(run: Path) -> None:
    results = manifest_of(run)["results"]
    members = [RewardScorer.load(str(run / f"member-{place}")) for place in range(3)]
    scores = torch.tensor([member.score(*toy_answers()) for member in members])
    together = Ensemble.load(str(run))
    assert together.score(*toy_answers()) == pytest.approx(scores.mean(0).tolist(), abs=1e-5)
    assert together.paths == tuple(str(run / f"member-{place}") for place in range(3))
    for how, expected in (("min", scores.amin(0)), ("lcb", scores.mean(0) - scores.std(0, correction=0))):
        told = Ensemble.load(str(run), aggregate=how).score(*toy_answers())
        assert told == pytest.approx(expected.tolist(), abs=1e-5)
    assert len(results["member_accuracies"]) == 3
    assert results["reward_accuracy_low"] <= results["reward_accuracy"]
    assert results["reward_std_of_members"] > 0
    assert "AutoModelForSequenceClassification" not in (run / "README.md").read_text()
    assert "`member-2`" in (run / "README.md").read_text()


def test_a_killed_run_goes_on_with_the_members_that_are_missing(
    run: Path, tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    trained = []
    one = stage.train

    def dies_in_the_second(recipe, folder, **options):
        trained.append(folder.path.name)
        if len(trained) == 2:
            raise Killed
        one(recipe, folder, **options)

    monkeypatch.setattr(stage, "train", dies_in_the_second)
    with pytest.raises(Killed):
        train(tmp_path, tiny_model_dir, "lora", "--num_members", "3")
    train(tmp_path, tiny_model_dir, "lora", "--num_members", "3")
    assert trained == ["member-0", "member-1", "member-1", "member-2"]
    whole, resumed = Ensemble.load(str(run)), Ensemble.load(str(tmp_path / "run"))
    assert whole.score(*toy_answers()) == resumed.score(*toy_answers())


def ppo(**keys: object) -> PPORecipe:
    given = {"stage": "ppo", "output_dir": "x", "model_name_or_path": "x", "datasets": [{"path": "x"}],
             "total_episodes": 64, **keys}  # fmt: skip
    return PPORecipe.model_validate(given)


def test_ppo_takes_the_run_for_what_it_is(run: Path) -> None:
    members = [str(run / f"member-{place}") for place in range(3)]
    short = ppo(reward_model_path=str(run))
    assert score_entries(short)[0].kind == "ensemble"
    entry = {"kind": "ensemble", "model_name_or_path": str(run), "aggregate": "lcb"}
    for recipe in (short, ppo(scorers=[entry])):
        assert reward_models(recipe) == members
        (part,) = build_scoring(recipe, {}).parts
        assert len(part.sources) == 3
    with pytest.raises(ModelError, match=r"scorer reward_model: .* is an ensemble; use kind: ensemble"):
        reward_models(ppo(scorers=[{"kind": "reward_model", "model_name_or_path": str(run)}]))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("  - {kind: ensemble}\n", "needs reward_models, a list of two or more folders, or model_name_or_path, a run"),
        ("  - {kind: ensemble, model_name_or_path: a, reward_models: [b, c]}\n", "excludes reward_models; give one"),
    ],
)
def test_an_ensemble_is_named_one_way(tmp_path: Path, lines: str, said: str) -> None:
    file = tmp_path / "ppo.yaml"
    file.write_text(
        "stage: ppo\noutput_dir: x\nmodel_name_or_path: y\ndatasets: [{path: z}]\ntotal_episodes: 64\nscorers:\n"
        + lines
    )
    with pytest.raises(RecipeError, match=said):
        load_recipe("ppo", ["--config", str(file)])


def test_the_trainers_own_smoothing_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "reward.yaml"
    file.write_text("stage: reward\noutput_dir: x\nmodel_name_or_path: y\ndatasets: [{path: z}]\n")
    with pytest.raises(
        RecipeError, match=r"label_smoothing_factor: is not read in stage reward, .*; use label_smoothing"
    ):
        load_recipe("reward", ["--config", str(file), "--label_smoothing_factor", "0.1"])


def test_several_answers_are_scored_in_one_row(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"prompt": "the cat", "responses": ["jumps", "", "no"]}) + "\n")
    capsys.readouterr()
    score_file(run, file)
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = Ensemble.load(str(run)).score(["the cat"] * 3, ["jumps", "", "no"])
    assert row["scores"] == pytest.approx(expected, abs=1e-5)
    assert len(row["score_stds"]) == 3
    assert all(std > 0 for std in row["score_stds"])
