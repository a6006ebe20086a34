"""GRPO with a reward that reads columns of the data: every answer with its row, and errors before a model loads."""

import json

import pytest
import yaml

from alignment.errors import AlignmentError
from recipes import grpo
from recipes import ppo as recipe_script
from tests.models import save_tiny_model

seen: list[tuple[str, str, int | None]] = []


def by_row(prompts, answers, answer, level=None):
    seen.extend(zip(prompts, answer, level, strict=True))
    return [len(text) % 3 + int(right) for text, right in zip(answers, answer, strict=True)]


def watched(prompts, answers, answer, level=None):
    return by_row(prompts, answers, answer, level)


def odd_rows(completions, answer, **kwargs):
    return [float(len(c)) if int(a) % 2 else None for c, a in zip(completions, answer, strict=True)]


def too_few(prompts, answers, answer):
    return [0.0]


def not_a_number(prompts, answers, answer):
    return [float("nan") for _ in answers]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("columns")
    save_tiny_model(path / "sft", initializer_range=0.3)
    rows = [{"prompt": f"tell me {number}", "answer": str(number)} for number in range(12)]
    rows[3]["level"] = 5
    (path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(folder, out, function, **keys):
    recipe = {
        "stage": "grpo", "output_dir": str(out), "model_name_or_path": str(folder / "sft"), "peft_method": "lora",
        "scorers": [{"kind": "function", "function": f"{__name__}:{function}", "name": "mine"}],
        "datasets": [{"path": str(folder / "prompts.jsonl")}], "total_episodes": 16, "rollout_batch_size": 8,
        "num_generations": 4, "max_new_tokens": 6, "per_device_train_batch_size": 4, **keys,
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    grpo.main(["--config", str(folder / "recipe.yaml")])


WATCHED = {"watch_scorers": [{"kind": "function", "function": f"{__name__}:watched"}]}


@pytest.mark.parametrize(
    "keys", [{}, {"dynamic_sampling": True, **WATCHED}, {"test_split_size": 0.3}], ids=["plain", "dynamic", "held-out"]
)
def test_every_answer_is_scored_with_the_columns_of_its_row(folder, tmp_path, keys):
    seen.clear()
    run(folder, tmp_path / "run", "by_row", **keys)
    assert len(seen) > 16
    assert all(prompt == f"tell me {right}" for prompt, right, _ in seen)
    assert {level for _, right, level in seen if right == "3"} <= {5}
    assert {level for _, right, level in seen if right != "3"} == {None}
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("score_mine" in line for line in logged)


def test_a_row_to_which_no_scorer_applies_ends_the_run(folder, tmp_path):
    with pytest.raises(AlignmentError, match="answers have no score: every scorer returned None"):
        run(folder, tmp_path / "run", "odd_rows")


@pytest.mark.parametrize(
    ("function", "data", "message"),
    [
        ("too_few", {}, "scorer mine returned 1 scores for 2 answers"),
        ("not_a_number", {}, "scorer mine returned nan for the answer"),
        ("by_row", {"columns": {"prompt": "answer"}, "ignore_columns": ["prompt"]}, "no row has the column answer"),
    ],
)
def test_a_wrong_function_is_refused_before_a_model_loads(folder, tmp_path, monkeypatch, function, data, message):
    def never(*_args, **_keys):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(recipe_script, "load_models", never)
    with pytest.raises(AlignmentError, match=message) as error:
        run(folder, tmp_path / "run", function, datasets=[{"path": str(folder / "prompts.jsonl"), **data}])
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


def test_a_column_that_no_scorer_reads_is_still_refused(folder, tmp_path):
    scorers = [{"kind": "function", "function": "recipes.tiny.gold:score"}]
    with pytest.raises(AlignmentError, match="answer"):
        run(folder, tmp_path / "run", "by_row", scorers=scorers)
