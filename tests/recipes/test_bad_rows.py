"""A row that a stage cannot use ends the run with one line and exit code 2, and leaves no folder."""

import importlib
import json

import pytest
import yaml

from alignment.errors import AlignmentError
from tests.models import save_tiny_model

RULES = {"kind": "rules", "function": "tests.evaluate.rules:shorter"}
FUNCTION = {"scorers": [{"kind": "function", "function": "tests.recipes.test_bad_rows:score"}], "total_episodes": 64}
GIVEN = {"prompt": "the cat", "responses": ["sat", "ran"]}
PROMPT = {"prompt": "the cat"}
PAIR = {**PROMPT, "chosen": "sat down", "rejected": "ran away"}
SHOWN = {**PROMPT, "completion": "sat down"}
STAGES = {  # name → stage, a good row, and keys of the recipe
    "pretrain": ("pretrain", {"text": "the cat sat"}, {}),
    "sft": ("sft", SHOWN, {}),
    "reward": ("reward", PAIR, {}),
    "an ensemble": ("reward", PAIR, {"num_members": 2}),
    "dpo": ("dpo", PAIR, {}),
    "kto": ("kto", PAIR, {}),
    "ppo": ("ppo", PROMPT, FUNCTION),
    "grpo": ("grpo", PROMPT, FUNCTION),
    "rloo": ("rloo", PROMPT, FUNCTION),
    "label": ("label", PROMPT, {"judge": RULES}),
    "label given": ("label", GIVEN, {"judge": RULES, "responses": "given"}),
    "label by gold": ("label", PROMPT, {"judge": RULES, "gate": {"gold": "good.jsonl", "min_accuracy": 0.1}}),
    "evaluate": ("evaluate", PROMPT, {"judges": [RULES]}),
}
CUT = '{"prompt": "the'
LONG = "the cat sat " * 200


def score(prompts, completions, **columns):
    return [0.0] * len(prompts)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model") / "model")


def refusal(name, model, folder, bad, **more):
    """Run a stage on twenty good rows and a bad one, and return its message."""
    stage, good, keys = STAGES[name]
    rows = [json.dumps({key: f"{value} {n}" if key in ("prompt", "text") else value for key, value in good.items()})
            for n in range(20)]  # fmt: skip
    (folder / "rows.jsonl").write_text("\n".join([*rows, bad]) + "\n")
    recipe = {"stage": stage, "output_dir": "run", "datasets": [{"path": "rows.jsonl"}], **keys, **more}
    if recipe.get("responses") != "given":
        recipe["model_name_or_path"] = str(model)
    if stage == "evaluate":
        recipe["candidates"] = [{"name": "other", "model_name_or_path": str(model)}]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(AlignmentError) as refused:
        importlib.import_module(f"recipes.{stage}").main(["--config", "recipe.yaml"])
    assert refused.value.exit_code == 2
    assert not (folder / "run").exists()
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


@pytest.mark.parametrize("name", STAGES)
def test_a_row_that_is_no_json(name, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "rows.jsonl:21" in refusal(name, model, tmp_path, CUT)


@pytest.mark.parametrize("name", [name for name in STAGES if name not in ("pretrain", "label given", "label by gold")])
def test_a_prompt_beyond_the_context(name, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = {**STAGES[name][1], "prompt": LONG}
    assert "rows.jsonl:21" in refusal(name, model, tmp_path, json.dumps(bad))


@pytest.mark.parametrize("name", STAGES)
def test_a_row_of_another_type(name, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "rows.jsonl:21" in refusal(name, model, tmp_path, json.dumps(dict.fromkeys(STAGES[name][1], 7)))


@pytest.mark.parametrize("name", ["sft", "dpo", "kto", "reward", "pretrain"])
def test_a_bad_row_of_the_data_that_is_held_out(name, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "held.jsonl").write_text(CUT + "\n")
    good = json.dumps(STAGES[name][1])
    keys = {"eval_datasets": [{"path": "held.jsonl"}], "eval_strategy": "epoch"}
    assert "held.jsonl:1" in refusal(name, model, tmp_path, good, **keys)


def test_a_bad_row_of_people_s_comparisons(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.jsonl").write_text(CUT + "\n")
    assert "good.jsonl:1" in refusal("label by gold", model, tmp_path, json.dumps(PROMPT))
