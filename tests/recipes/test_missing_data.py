"""A stage whose data cannot be read leaves no folder behind."""

import importlib

import pytest
import yaml

from alignment.data import load
from alignment.errors import DataError

JUDGE = {"kind": "rules", "function": "tests.evaluate.rules:shorter"}
STAGES = {
    "sft": {},
    "reward": {},
    "dpo": {},
    "ppo": {"scorers": [{"kind": "function", "function": "operator:add"}], "total_episodes": 64},
    "label": {"judge": {"kind": "rules", "function": "recipes.tiny.judge:prefer"}},
    "evaluate": {
        "candidates": [{"name": "other", "model_name_or_path": "m"}],
        "judges": [{"kind": "rules", "function": "recipes.tiny.judge:prefer"}],
    },
}


def run(stage, folder, **keys):
    model = {} if keys.get("responses") == "given" else {"model_name_or_path": "m"}
    recipe = {"stage": stage, "output_dir": str(folder / "run"), **model, **STAGES[stage], **keys}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    importlib.import_module(f"recipes.{stage}").main(["--config", str(folder / "recipe.yaml")])


@pytest.mark.parametrize("stage", STAGES)
def test_a_path_that_does_not_exist_is_refused_before_the_folder_is_made(tmp_path, stage):
    with pytest.raises(DataError, match=r"nope\.jsonl does not exist"):
        run(stage, tmp_path, datasets=[{"path": "nope.jsonl"}])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("responses", ["given", "sampled"])
def test_labelling_reads_its_data_once(tmp_path, monkeypatch, tiny_model_dir, responses):
    made = []
    monkeypatch.setattr(load, "load", lambda *given, do=load.load: made.append(given) or do(*given))
    (tmp_path / "d.jsonl").write_text('{"prompt": "a", "responses": ["a cat", "a dog"]}\n')
    sampled = {"model_name_or_path": str(tiny_model_dir), "max_new_tokens": 4}
    data = [{"path": str(tmp_path / "d.jsonl")}]
    run(
        "label",
        tmp_path,
        datasets=data,
        responses=responses,
        judge=JUDGE,
        **(sampled if responses == "sampled" else {}),
    )
    assert len(made) == 1


def test_labelling_reads_its_data_before_the_folder_is_made(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"prompt": "a"\n')
    with pytest.raises(DataError, match="invalid JSON"):
        run("label", tmp_path, datasets=[{"path": str(tmp_path / "d.jsonl")}])
    assert not (tmp_path / "run").exists()
