"""What each key is declared to be: words, a path that is read or written, free to change."""

from typing import Annotated

import pytest
import yaml
from pydantic import Field

from alignment.config import load_recipe
from alignment.config.input_paths import input_modules, input_paths, located_inputs
from alignment.config.schema import STAGES, Mark, Part, PipelineRecipe, keys_marked, path_keys
from alignment.config.schema.parts import (
    Free,
    InputPath,
    Text,
    Words,
    marks_of,
    parts_within,
    takes_text_alone,
    takes_undeclared_text,
)
from alignment.run.directory import recipe_digest, resolved_recipe

FILES = (*STAGES.values(), PipelineRecipe)


class Undeclared(Part):
    """Keys that take text in every way that a schema does."""

    plain: str
    optional: Text | None = None
    several: list[Text] = Field(default_factory=list)
    either: int | list[str] | None = None
    number: int = 3
    declared: InputPath | list[Words] | None = None


def undeclared(cls: type[Part]) -> set[str]:
    parts = parts_within(cls)
    return {f"{part.__name__}.{name}" for part in parts for name, info in part.model_fields.items()
            if takes_undeclared_text(info)}  # fmt: skip


@pytest.mark.parametrize("cls", FILES)
def test_every_key_that_takes_text_is_declared(cls):
    assert undeclared(cls) == set()


def test_a_key_that_is_not_declared_is_found():
    keys = ("plain", "optional", "several", "either")
    assert undeclared(Undeclared) == {f"Undeclared.{key}" for key in keys}


@pytest.mark.parametrize("cls", FILES)
def test_every_key_is_words_or_one_kind_of_path(cls):
    for part in parts_within(cls):
        for name, info in part.model_fields.items():
            kinds = marks_of(info) - {Mark.FREE, Mark.LATE}
            assert len(kinds) <= 1, f"{part.__name__}.{name}"


def test_a_key_is_free_in_all_stages_or_in_none_and_never_inside_a_mapping():
    for mark in (Mark.FREE, Mark.LATE):
        for cls in STAGES.values():
            for part in parts_within(cls):
                marked = {name for name, info in part.model_fields.items() if mark in marks_of(info)}
                assert marked == ({*part.model_fields} & keys_marked(mark) if part is cls else set()), part.__name__


def test_keys_that_take_only_text_are_found():
    class Some(Part):
        words: Words
        path: InputPath | None = None
        free: Free[Text | None] = None
        listed: Words | list[Words] = ""
        number: int | None = None

    assert {name for name, info in Some.model_fields.items() if takes_text_alone(info)} == {"words", "path", "free"}


LABEL = {
    "stage": "label",
    "output_dir": "runs/label",
    "model_name_or_path": "runs/sft",
    "datasets": [{"path": "a.jsonl", "name": "words"}, {"path": "b.jsonl"}],
    "chat_template": "chatml",
    "judge": {"kind": "openai", "model": "m", "prices": "prices.yaml", "constitution": "principles.yaml"},
    "gate": {"gold": "gold.jsonl", "min_kappa": 0.5},
}


def loaded(folder, **keys):
    (folder / "r.yaml").write_text(yaml.safe_dump(LABEL | keys))
    return load_recipe("label", ["--config", str(folder / "r.yaml")])


def test_the_inputs_of_a_recipe_are_found_in_every_mapping_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read = {"runs/sft", "a.jsonl", "b.jsonl", "prices.yaml", "principles.yaml", "gold.jsonl"}
    assert set(input_paths(loaded(tmp_path))) == read
    (tmp_path / "template.jinja").write_text("{{ messages }}")
    assert set(input_paths(loaded(tmp_path, chat_template="template.jinja"))) == {*read, "template.jinja"}


@pytest.mark.parametrize("cls", list(STAGES.values()))
def test_every_key_that_is_declared_an_input_is_found(cls):
    for part in parts_within(cls):
        for name, info in part.model_fields.items():
            if Mark.INPUT in marks_of(info):
                assert ((name,), "some/path") in located_inputs(part, {name: "some/path"}), f"{part.__name__}.{name}"


def test_the_modules_of_all_functions_are_found(tmp_path):
    rules = [{"kind": "rules", "function": f"package.{name}:judge"} for name in ("one", "two")]
    assert list(input_modules(loaded(tmp_path, judge=rules[0]))) == ["package.one"]
    jury = {"kind": "jury", "members": rules}
    assert list(input_modules(loaded(tmp_path, judge=jury))) == ["package.one", "package.two"]


def data_inputs(folder, **entry):
    return set(input_paths(loaded(folder, datasets=[entry]))) - {"runs/sft", "prices.yaml", "principles.yaml"}


def test_the_files_that_data_files_names_are_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/en").mkdir(parents=True)
    for name in ("data/a.jsonl", "data/b.jsonl", "data/en/c.jsonl", "outside.jsonl"):
        (tmp_path / name).write_text("{}")
    kept = {"json", "gold.jsonl"}
    assert data_inputs(tmp_path, path="json", data_files="outside.jsonl") == {*kept, "outside.jsonl"}
    assert data_inputs(tmp_path, path="json", data_dir="data", data_files=["*.jsonl", "outside.jsonl"]) == {
        *kept, "data/a.jsonl", "data/b.jsonl", "outside.jsonl"
    }  # fmt: skip
    inner = data_inputs(tmp_path, path="data", name="en", data_files="*.jsonl")
    assert inner == {"data", "gold.jsonl", "data/en/c.jsonl"}
    absent = data_inputs(tmp_path, path="data", data_files="*.csv")
    assert absent == {"data", "gold.jsonl", "data/*.csv"}  # an earlier stage of a pipeline may write it
    hub = data_inputs(tmp_path, path="owner/name", data_files="outside.jsonl")
    assert hub == {"owner/name", "gold.jsonl"}


def test_a_recipe_without_a_model_does_not_read_the_working_folder(tmp_path):
    assert "" not in set(input_paths(loaded(tmp_path, model_name_or_path="", chat_template=None, responses="given")))


@pytest.mark.parametrize(
    ("key", "value", "same"),
    [
        ("output_dir", "x", True),
        ("max_calls", 5, True),
        ("run_name", "x", True),
        ("gate", None, False),
        ("seed", 1, False),
    ],
)
def test_free_keys_leave_a_run_its_identity(tmp_path, key, value, same):
    digests = {recipe_digest(resolved_recipe(loaded(tmp_path, **keys))) for keys in ({}, {key: value})}
    assert len(digests) == (1 if same else 2)


def test_declared_keys_are_those_of_the_schema():
    assert path_keys() >= {"output_dir", "revision_prompt", "prices", "data_dir", "accelerate_config"}
    assert marks_of(STAGES["sft"].model_fields["output_dir"]) == {Mark.OUTPUT, Mark.FREE}
    assert Annotated[str, Mark.WORDS] == Words
