"""Pipelines load with all their recipes, move to another folder, and tell every fault."""

from pathlib import Path

import pytest
import yaml

from alignment.config import check_file, load_pipeline
from alignment.config.documents import parse_value
from alignment.config.pipelines import as_word
from alignment.errors import RecipeError

SFT = {
    "stage": "sft",
    "output_dir": "runs/x/sft",
    "model_name_or_path": "runs/x/data/model",
    "datasets": [
        {"path": "runs/x/data/train.jsonl"},
        {"path": "elsewhere/runs/x/d.jsonl"},
        {"path": "runs/xy/d.jsonl"},
    ],
    "learning_rate": 1e-3,
}


def save(tmp_path: Path, stages: list[dict], sft: dict | None = None, **more) -> str:
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump(sft or SFT, sort_keys=False))
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump({"name": "x", "output_dir": "runs/x", "stages": stages} | more, sort_keys=False))
    return str(file)


COMMAND = {"name": "data", "command": ["make.data", "--out", "runs/x/data", "--seed", "0"], "outputs": ["runs/x/data"]}


def test_stages_are_ready_to_run(tmp_path):
    path = save(tmp_path, [COMMAND, {"name": "sft", "recipe": "sft.yaml", "overrides": {"seed": 3, "packing": True}}])
    data, sft = load_pipeline(path).stages
    assert data.arguments == ("make.data", "--out", "runs/x/data", "--seed", "0")
    assert sft.recipe.seed == 3
    assert sft.recipe.library == {"learning_rate": 1e-3, "packing": True}
    assert sft.outputs == ("runs/x/sft",)
    assert sft.arguments == ("recipes.sft", "--config", f"{tmp_path}/sft.yaml", "--seed", "3", "--packing", "true")


def test_everything_below_the_folder_moves(tmp_path):
    pipeline = load_pipeline(save(tmp_path, [COMMAND, {"name": "sft", "recipe": "sft.yaml"}]), "/other/place", seed=5)
    data, sft = pipeline.stages
    assert pipeline.output_dir == "/other/place"
    assert data.arguments == ("make.data", "--out", "/other/place/data", "--seed", "5")
    assert data.outputs == ("/other/place/data",)
    assert sft.recipe.output_dir == "/other/place/sft"
    assert sft.recipe.model_name_or_path == "/other/place/data/model"
    assert [entry.path for entry in sft.recipe.datasets] == [
        "/other/place/data/train.jsonl",
        "elsewhere/runs/x/d.jsonl",
        "runs/xy/d.jsonl",
    ]
    assert sft.recipe.seed == 5


def test_faults_of_all_recipes_are_reported_at_once(tmp_path):
    stages = [
        {"name": "sft", "recipe": "sft.yaml", "overrides": {"lora_r": "x"}},
        {"name": "dpo", "recipe": "none.yaml"},
    ]
    path = save(tmp_path, stages, SFT | {"learning_rat": 1})
    with pytest.raises(RecipeError) as error:
        check_file(path)
    assert [fault.replace(f"{tmp_path}/", "") for fault in error.value.faults] == [
        "sft.yaml:9: learning_rat: no such key; did you mean learning_rate?",
        "pipeline.yaml:4: stages[0]: --lora_r: must be a whole number, found 'x'",
        "none.yaml: no such file",
    ]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "stages: must have at least one entry"),
        ([{"name": "a"}], "stages[0]: needs either recipe or command"),
        ([COMMAND | {"recipe": "sft.yaml"}], "stages[0]: needs either recipe or command"),
        ([COMMAND, COMMAND], "stages[1].name: data is also the name of stages[0]; give each its own"),
        ([COMMAND | {"overrides": {"a": 1}}], "stages[0].overrides: belongs to recipe stages alone"),
        ([COMMAND | {"outputs": []}], "stages[0]: a command needs outputs, which show whether it has finished"),
        ([COMMAND, COMMAND | {"name": "b"}], "stages[1]: writes runs/x/data, as stage data does; give each its own"),
        ([COMMAND | {"name": "../up"}], "stages[0].name: "),
        ([COMMAND | {"recipes": "x"}], "stages[0].recipes: no such key; did you mean recipe?"),
    ],
)
def test_pipelines_that_cannot_be(tmp_path, stages, message):
    with pytest.raises(RecipeError) as error:
        load_pipeline(save(tmp_path, stages))
    assert message in str(error.value)


def test_the_accelerate_configuration_must_be_there(tmp_path):
    with pytest.raises(RecipeError, match=r"accelerate_config: no such file: none\.yaml"):
        load_pipeline(save(tmp_path, [COMMAND], accelerate_config="none.yaml"))


@pytest.mark.parametrize(
    "value", ["a", "5", "5e-5", "true", "null", "", "--x", "a: b", "[x]", 5, 1.5, True, None, [1, "2"]]
)
def test_values_survive_the_command_line(value):
    assert parse_value(as_word(value)) == value
