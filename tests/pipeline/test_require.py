"""A pipeline stops after an evaluation whose win rates miss its `require`, prints the figures, and goes on later."""

import io
import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from alignment.config import load_pipeline
from alignment.errors import GateError, RecipeError
from alignment.pipeline.runner import run_pipeline
from reward.people.items import load_items, place_of
from tests.models import save_tiny_model

QUESTIONS = [f"tell me of {what}" for what in ("cats", "dogs", "balls", "friends", "the sea", "a fox")]


def evaluated_by_hand(arguments, *_):
    """What the stage's process does, in this one."""
    from recipes.evaluate import main

    words = arguments[arguments.index("recipes.evaluate") + 1 :]
    main(words)
    return 0


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("sft", "ppo")):
        save_tiny_model(root / name, seed=seed)
    return root


@pytest.fixture
def pipeline(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("alignment.pipeline.runner.run_logged", evaluated_by_hand)
    rows = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "a"}]} for q in QUESTIONS]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "stage": "evaluate", "output_dir": "runs/evaluate", "model_name_or_path": str(models / "sft"),
        "candidates": [{"name": "ppo", "model_name_or_path": str(models / "ppo")}],
        "datasets": [{"path": "prompts.jsonl"}], "max_new_tokens": 4, "bootstrap_samples": 200,
        "judges": [{"kind": "rules", "name": "first", "function": "tests.evaluate.rules:always_the_first"}],
    }  # fmt: skip
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(recipe))

    def write(**limits):
        require = {"win_rate": {"against": "sft"} | limits}
        stages = [{"name": "evaluate", "recipe": "evaluate.yaml", "require": require}]
        (tmp_path / "pipeline.yaml").write_text(
            yaml.safe_dump({"name": "gated", "output_dir": "runs", "stages": stages})
        )

    return write


def run() -> str:
    said = io.StringIO()
    assert run_pipeline("pipeline.yaml", console=Console(file=said, width=200)) == 0
    return said.getvalue()


def people_rank(folder: Path, *firsts: str) -> None:
    """Write what `alignment annotate` exports: Ann puts the named policy first on each item."""
    items = load_items(place_of(folder, None), ask="rank")
    rows = []
    for item, first in zip(items, firsts, strict=False):
        ranks = [1 if name == first else 2 for name in item.provenance["policies"]]
        provenance = {**item.provenance, "source": "person", "annotator": "Ann"}
        rows.append({"prompt": item.prompt, "responses": item.responses, "ranks": ranks, "provenance": provenance})
    (folder / "people.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_gate_stops_prints_the_figure_and_opens(pipeline):
    pipeline(by="people", low=0.5)
    with pytest.raises(GateError, match=r"people have not compared ppo with sft yet.*alignment annotate runs/evaluate"):
        run()
    folder = Path("runs/evaluate")
    people_rank(folder, "ppo", "sft", "ppo", "sft")
    with pytest.raises(GateError) as error:
        run()
    assert error.value.exit_code == 3
    assert (
        "evaluate: ppo against sft by people: win rate 50.00% [0.00, 100.00], 2 wins, 0 draws, 2 losses on 4 "
        in str(error.value)
    )
    assert "the interval begins at 0.00%, low is 0.5" in str(error.value)
    assert "The pipeline stops here" in str(error.value)
    people_rank(folder, *["ppo"] * 5)
    said = run()
    assert "evaluate: unchanged, skipped" in said  # only the gate is looked at again
    # Five wins of five: Wilson's interval, 5 / (5 + 1.96^2) = 56.55%.
    assert "ppo against sft by people: win rate 100.00% [56.55, 100.00], 5 wins, 0 draws, 0 losses on 5 prompts" in said
    assert "Report:" in said

    rows = (
        (folder / "people.jsonl").read_text().replace('"sft"', '"xxx"').replace('"responses": ["', '"responses": ["z')
    )
    (folder / "people.jsonl").write_text(rows)  # of an earlier evaluation: the texts are no longer its answers
    with pytest.raises(GateError, match="people have not compared ppo with sft yet"):
        run()


def test_an_evaluation_without_judges_waits_for_people(pipeline, tmp_path):
    pipeline(by="people", low=0.5)
    with pytest.raises(GateError, match="people have not compared"):
        run()
    answers = tmp_path / "runs/evaluate/answers.jsonl"  # as an evaluation by tasks alone writes them
    rows = [json.loads(line) | {"verdicts": {}} for line in answers.read_text().splitlines()]
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(GateError, match=r"people have not compared ppo with sft yet.*alignment annotate runs/evaluate"):
        run()
    pipeline(by="first", low=0.5)
    with pytest.raises(GateError, match=r"nobody named first has compared .* judgements by nobody"):
        run()
    people_rank(answers.parent, *["ppo"] * 5)
    pipeline(by="people", low=0.5)
    assert "ppo against sft by people: win rate 100.00% [56.55, 100.00]" in run()


def test_a_judge_by_name_and_a_limit_on_the_rate(pipeline):
    pipeline(by="first", value=0.5)
    assert "ppo against sft by first: win rate 50.00%" in run()  # always the first in both orders: all draws
    pipeline(by="first", value=0.51)
    with pytest.raises(GateError, match=r"value is 0\.51"):
        run()
    pipeline(by="first", low=0.1, min_prompts=100)
    with pytest.raises(GateError, match="fewer prompts than min_prompts 100"):
        run()
    pipeline(by="person:Bob", low=0.1)
    with pytest.raises(GateError, match=r"nobody named person:Bob has compared ppo with sft; .* judgements by first"):
        run()


def test_requirements_that_cannot_be_shown_are_refused_before_anything_runs(pipeline, tmp_path):
    for limits, words in (
        ({"low": 0.5, "against": "dpo"}, r"dpo is not evaluated; evaluate has sft, ppo"),
        ({"low": 0.5, "of": ["rloo"]}, r"rloo is not evaluated"),
        ({"low": 0.5, "of": ["sft"]}, r"sft is also `against`"),
        ({}, r"needs a limit: low, of the interval's lower end, or value"),
        ({"low": 1.5}, r"low.*1\.5"),
        ({"lower": 0.5}, r"lower"),
        ({"low": 0.5, "by": "gpt"}, r"by: gpt is no judge of this evaluation; it may be first, people, person:NAME"),
        ({"low": 0.5, "by": "first", "against": "ppo"}, r"against: judges compare with the baseline sft alone"),
    ):
        pipeline(**limits)
        with pytest.raises(RecipeError, match=words):
            load_pipeline("pipeline.yaml")
    pipeline(low=0.5, by="first", against="ppo", of=["sft"])
    load_pipeline("pipeline.yaml")
    stage = {
        "name": "x",
        "command": ["step"],
        "outputs": ["y"],
        "require": {"win_rate": {"against": "sft", "low": 0.5}},
    }
    Path("pipeline.yaml").write_text(yaml.safe_dump({"name": "p", "output_dir": "runs", "stages": [stage]}))
    with pytest.raises(RecipeError, match="belongs to the stage of an evaluation"):
        load_pipeline("pipeline.yaml")
