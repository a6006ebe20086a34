"""Questions of other domains: answers of each policy, their scores, and differences row by row."""

import json
from pathlib import Path

import pytest
import yaml

from alignment.config.schema import EvaluateRecipe
from alignment.errors import AlignmentError
from alignment.planner.rows import outside_answers
from recipes.evaluate import main
from tests.models import save_tiny_model

ANIMALS = ("cats", "dogs", "foxes", "balls", "friends", "the lazy dog")


def words(prompts: list[str], answers: list[str], reference: list[str]) -> list[float]:
    """Score how much of the reference's letters an answer has."""
    return [len({*answer} & {*wanted}) / len({*wanted}) for answer, wanted in zip(answers, reference, strict=True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("questions")
    for name, seed in (("base", 0), ("other", 1)):
        save_tiny_model(root / name, seed=seed, chat_template=None)
    asked = [{"prompt": f"tell me of {animal}", "reference": animal} for animal in ANIMALS]
    (root / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    (root / "heldout.jsonl").write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in asked[:2]))
    (root / "text.jsonl").write_text("".join(json.dumps({"text": f"the quick brown {n}"}) + "\n" for n in ANIMALS))
    return root


@pytest.fixture
def recipe(folder, tmp_path):
    def make(scorers, prompts="asked", **keys):
        questions = {"name": "animals", "datasets": [{"path": str(folder / f"{prompts}.jsonl")}], "scorers": scorers}
        file = tmp_path / "evaluate.yaml"
        given = {
            "stage": "evaluate",
            "output_dir": str(tmp_path / "out"),
            "model_name_or_path": str(folder / "base"),
            "candidates": [
                {"name": name, "model_name_or_path": str(folder / model)}
                for name, model in (("other", "other"), ("twin", "base"))
            ],
            "datasets": [{"path": str(folder / "heldout.jsonl")}],
            "judges": [{"kind": "rules", "name": "shorter", "function": "tests.evaluate.rules:shorter"}],
            "max_new_tokens": 8,
            "outside_questions": [questions | keys],
        }
        file.write_text(yaml.safe_dump(given))
        return ["--config", str(file)]

    return make


OWN = {"kind": "function", "function": "tests.evaluate.test_questions:words"}


@pytest.mark.parametrize("temperature", [0, 1])
def test_each_policy_answers_and_differences_are_paired(recipe, tmp_path, capsys, temperature):
    main(recipe([OWN, {"kind": "length", "unit": "characters", "maximum": 10, "weight": 2}], temperature=temperature))
    rows = [json.loads(line) for line in (tmp_path / "out" / "outside_answers.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [f"tell me of {animal}" for animal in ANIMALS]
    for row, animal in zip(rows, ANIMALS, strict=True):
        for policy, answer in row["answers"].items():
            short = 1.0 if len(answer) <= 10 else 0.0
            assert row["scores"][policy] == pytest.approx(words([], [answer], [animal])[0] + 2 * short)
    forgot = json.loads((tmp_path / "out" / "results.json").read_text())["details"]["forgetting"]
    other, twin = forgot["other"]["data"]["animals"], forgot["twin"]["data"]["animals"]
    differences = [row["scores"]["other"] - row["scores"]["sft"] for row in rows]
    assert other["score_difference"]["value"] == pytest.approx(sum(differences) / 6)
    assert other["score_difference"]["n"] == 6
    assert other["score_difference"]["low"] <= other["score_difference"]["value"] <= other["score_difference"]["high"]
    assert other["baseline_score"]["value"] == pytest.approx(sum(row["scores"]["sft"] for row in rows) / 6)
    assert {row["answers"]["other"] == row["answers"]["sft"] for row in rows} != {True}
    assert twin["score_difference"]["value"] == 0  # the same model, the same answers
    assert not twin["forgotten"]
    assert "Outside the domain, against sft" in capsys.readouterr().out


def test_a_plan_counts_the_answers(recipe):
    given = yaml.safe_load(Path(recipe([OWN], max_new_tokens=16)[1]).read_text())
    assert outside_answers(EvaluateRecipe(**given)) == 12  # six of twice the tokens
    given["outside_questions"][0]["datasets"][0]["path"] = "none.jsonl"
    assert outside_answers(EvaluateRecipe(**given)) == 0


def test_verifiers_read_references_of_the_rows(recipe, tmp_path, folder):
    asked = [{"prompt": "What is 1 + 1?", "answer": "2"}, {"prompt": "What is 2 + 3?", "answer": "5"}]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    main(recipe([{"kind": "math"}], "sums"))
    rows = [json.loads(line) for line in (tmp_path / "out" / "outside_answers.jsonl").read_text().splitlines()]
    assert {score for row in rows for score in row["scores"].values()} == {0.0}


@pytest.mark.parametrize(
    ("scorers", "keys", "told"),
    [
        ([{"kind": "reward_model", "model_name_or_path": "x"}], {}, "must be one of function, math, ifeval, format"),
        ([{"kind": "length"}], {}, "needs minimum, maximum or both"),
        ([OWN | {"weight": 0}], {}, "all have weight 0"),
        ([{"kind": "math"}], {}, "A scorer reads answer, which the row lacks"),
        ([OWN | {"function": "tests.evaluate.rules:none"}], {}, "none"),
        ([OWN], {"max_new_tokens": 250}, "leaves no 250 for an answer in the model's context of 256"),
        ([OWN], {"datasets": [{"path": "none.jsonl"}]}, "none.jsonl does not exist"),
    ],
)
def test_questions_that_cannot_be_scored_are_refused(recipe, scorers, keys, told, tmp_path):
    with pytest.raises(AlignmentError, match=told) as error:
        main(recipe(scorers, **keys))
    assert error.value.exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            [{"prompt": "tell me"}, {"prompt": "fox " * 300}],
            r"held\.jsonl:2: the prompt has .* in the context of other",
        ),
        ([{"prompt": "tell me", "reference": "cats"}], "does not read 'reference'"),
        ([], "is empty"),
    ],
)
def test_held_out_prompts_that_cannot_be_answered_are_refused_before_the_folder_is_made(recipe, tmp_path, rows, told):
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = recipe([OWN])[1]
    given = yaml.safe_load(Path(file).read_text()) | {"datasets": [{"path": str(tmp_path / "held.jsonl")}]}
    Path(file).write_text(yaml.safe_dump(given))
    with pytest.raises(AlignmentError, match=told) as error:
        main(["--config", file])
    assert error.value.exit_code == 2
    assert not (tmp_path / "out").exists()
