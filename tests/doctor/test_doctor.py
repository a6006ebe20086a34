"""`alignment doctor`: what it finds, and what it tells to do about it."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from transformers import AutoTokenizer

from alignment.config.loading import check_recipe
from alignment.doctor import environment as here
from alignment.doctor.command import doctor
from alignment.doctor.findings import Finding
from alignment.doctor.recipe import examine
from alignment.errors import RecipeError
from alignment.planner.machine import Machine
from reward.scorers import try_scorers

ROOT = Path(__file__).parents[2]
CPU = Machine(gpu=False)
SCORED: dict[str, Any] = {"scorers": [{"kind": "function", "function": "operator:add"}]}


@pytest.fixture
def recipe(tmp_path: Path, tiny_model_dir: Path) -> Callable[..., str]:
    def write(stage: str = "sft", rows: list[dict[str, Any]] | None = None, **keys: Any) -> str:
        data = tmp_path / "data.jsonl"
        default = [{"prompt": f"question {i}", "completion": "an answer"} for i in range(20)]
        data.write_text("".join(json.dumps(row) + "\n" for row in (default if rows is None else rows)))
        recipe = {
            "stage": stage,
            "output_dir": str(tmp_path / "run"),
            "model_name_or_path": str(tiny_model_dir),
            "datasets": [{"path": str(data)}],
            **keys,
        }
        file = tmp_path / f"{stage}.yaml"
        file.write_text(yaml.safe_dump(recipe))
        return str(file)

    return write


def look(file: str, machine: Machine = CPU) -> dict[str, Finding]:
    return {finding.about: finding for finding in examine(check_recipe(file), machine)}


def raises(prompts: list[str], answers: list[str]) -> list[float]:
    raise ValueError("no such column")


def not_a_number(prompts: list[str], answers: list[str]) -> list[float]:
    return [float("nan") for _ in answers]


def one_too_few(prompts: list[str], answers: list[str]) -> list[float]:
    return [1.0 for _ in answers][1:]


def needs_a_column(prompts: list[str], answers: list[str], solution: list[str]) -> list[float]:
    return [1.0 for _ in answers]


def scores(prompts: list[str], answers: list[str]) -> list[float]:
    return [float(len(answer)) for answer in answers]


@pytest.mark.parametrize("stage", ["grpo", "rloo", "ppo"])
@pytest.mark.parametrize(
    ("function", "level", "words"),
    [
        ("scores", "ok", "mine scored two answers"),
        ("raises", "fault", "no such column"),
        ("not_a_number", "fault", "nan"),
        ("one_too_few", "fault", "1 score"),
        ("needs_a_column", "fault", "solution"),
        ("absent", "fault", "absent"),
    ],
)
def test_functions_that_score_answers_are_tried(
    recipe: Callable[..., str], stage: str, function: str, level: str, words: str
) -> None:
    entry = {"kind": "function", "function": f"{__name__}:{function}", "name": "mine"}
    keys: dict[str, Any] = {"scorers": [entry], "total_episodes": 64}
    checked = check_recipe(recipe(stage, [{"prompt": f"question {i}"} for i in range(20)], **keys))
    found = {finding.about: finding for finding in examine(checked, CPU, try_scorers=try_scorers)}
    about = "data" if function == "needs_a_column" else "scorers"  # to read the rows asks for the columns
    assert (found[about].level, words in found[about].found) == (level, True), found[about]


def test_functions_are_imported_if_an_earlier_stage_writes_the_data(recipe: Callable[..., str], tmp_path: Path) -> None:
    for function, level in (("scores", "ok"), ("absent", "fault")):
        entry = {"kind": "function", "function": f"{__name__}:{function}", "name": "mine"}
        keys: dict[str, Any] = {"scorers": [entry], "total_episodes": 64, "datasets": [{"path": str(tmp_path / "no")}]}
        checked = check_recipe(recipe("grpo", **keys))
        findings = examine(checked, CPU, made=[str(tmp_path / "no")], try_scorers=try_scorers)
        assert [finding.level for finding in findings if finding.about == "scorers"] == [level]


def test_a_sound_recipe_has_no_fault(recipe: Callable[..., str]) -> None:
    found = look(recipe())
    assert {finding.level for finding in found.values()} <= {"ok", "note"}, found
    assert {"model", "memory", "disk", "template", "data", "lengths", "labels"} <= found.keys()
    assert "20 rows" in found["data"].found
    assert "% of labels are masked" in found["labels"].found


def test_versions_are_those_that_the_tests_run_with() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert {name: pins[name] for name in here.TESTED} == here.TESTED


def test_libraries_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"torch": "2.13.0+cu130", "trl": "1.16.3", "peft": "0.30.0"}
    monkeypatch.setattr(here.importlib.metadata, "version", lambda name: said[name])
    assert here.library("torch").level == "ok"
    assert here.library("trl").level == "note"
    assert here.library("peft").level == "warning"
    assert "pip install peft==0.21.2" in here.library("peft").remedy
    monkeypatch.undo()
    monkeypatch.setitem(here.TESTED, "no-such-library", "1.0")
    assert here.library("no-such-library").level == "fault"


def test_a_build_that_was_killed_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    assert list(here.builds()) == []
    lock = tmp_path / "py311_cpu" / "cpu_adam" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    [found] = here.builds()
    assert found.level == "warning"
    assert f"{lock}: cpu_adam is being built, or its build was killed" in found.found
    assert "remove the file" in found.remedy


def test_an_old_python_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert here.python().level == "fault"


@pytest.mark.parametrize(
    ("keys", "about", "level", "words"),
    [
        ({"model_name_or_path": "./absent"}, "model", "fault", "does not exist"),
        ({"lora_target_modules": ["q_proj", "query_key_value"]}, "model", "fault", "no module query_key_value"),
        ({"lora_target_modules": ["query_key_value"]}, "model", "fault", "query_key_value"),
        ({"eos_token": "<no such>"}, "tokenizer", "fault", "is not a token"),
        ({"max_length": 4}, "labels", "fault", "no row has a label with a loss"),
        ({"datasets": [{"path": "./absent.jsonl"}]}, "data", "fault", "absent.jsonl"),
        ({"report_to": "wandb"}, "W&B", "warning", "no API key is set"),
        ({"output_dir": f"{__file__}/run"}, "output_dir", "fault", "cannot be written"),
    ],
)
def test_faults_are_found_each_with_a_remedy(
    keys: dict[str, Any],
    about: str,
    level: str,
    words: str,
    recipe: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", os.devnull)
    found = look(recipe(**keys))
    assert found[about].level == level, found
    assert words in found[about].found
    assert found[about].remedy


def test_another_stop_token_of_the_generation_config_is_a_warning(
    recipe: Callable[..., str], tmp_path: Path, tiny_model_dir: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    for file in model.glob("chat_template*"):
        file.unlink()
    configuration = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**configuration, "chat_template": None}))
    tokenizer = AutoTokenizer.from_pretrained(model)
    names = [token for token in tokenizer.all_special_tokens if token != tokenizer.eos_token]
    ids = tokenizer.convert_tokens_to_ids([tokenizer.eos_token, names[0]])
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    found = look(recipe(model_name_or_path=str(model)))["eos_token"]
    assert found.level == "warning"
    assert f"generation_config.json also names {names[0]!r}" in found.found
    assert "eos_token" not in look(recipe(model_name_or_path=str(model), eos_token=names[0]))


def test_long_rows_are_counted(recipe: Callable[..., str]) -> None:
    rows = [{"prompt": "q", "completion": "a " * (40 if i < 3 else 2)} for i in range(10)]
    found = look(recipe(rows=rows, max_length=32))["lengths"]
    assert 32 < int(found.found.split("maximum ")[1].split(",")[0]) < 64
    assert (found.level, found.found[:10]) == ("warning", "30% are cu")


def test_prompts_that_do_not_fit_stop_a_run_unless_they_are_left_out(recipe: Callable[..., str]) -> None:
    rows = [{"prompt": "word " * 40}, {"prompt": "q"}]
    keys = {**SCORED, "total_episodes": 64, "max_prompt_length": 16, "max_new_tokens": 8}
    assert look(recipe("ppo", rows, **keys))["lengths"].level == "fault"
    assert look(recipe("ppo", rows, on_bad_row="skip", **keys))["lengths"].level == "warning"


def test_the_prompts_of_an_evaluation_are_measured_by_the_context(
    recipe: Callable[..., str], tiny_model_dir: Path
) -> None:
    keys: dict[str, Any] = {
        "candidates": [{"name": "twin", "model_name_or_path": str(tiny_model_dir)}],
        "judges": [{"kind": "rules", "name": "r", "function": "tests.evaluate.rules:shorter"}],
    }
    assert look(recipe("evaluate", [{"prompt": "q"}], **keys))["lengths"].level == "ok"


def test_batches_that_do_not_divide_are_a_fault(recipe: Callable[..., str]) -> None:
    file = recipe("ppo", **SCORED, total_episodes=64, rollout_batch_size=32, num_mini_batches=2)
    assert look(file, Machine(gpus=2, strategy="ddp", gpu=False))["batches"].level == "ok"
    found = look(file, Machine(gpus=3, strategy="ddp", gpu=False))["batches"]
    assert (found.level, "on 3 processes" in found.found) == ("fault", True)


def test_too_little_memory_and_disk_are_faults(recipe: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(recipe(), Machine(memory=1))["memory"].level == "fault"
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    assert look(recipe())["disk"].level == "fault"


def test_a_pipeline_waits_for_what_its_stages_make(tmp_path: Path, recipe: Callable[..., str]) -> None:
    sft = recipe()
    recipe("dpo", model_name_or_path=str(tmp_path / "run"), output_dir=str(tmp_path / "dpo"))
    stages = [{"name": name, "recipe": f"{name}.yaml"} for name in ("sft", "dpo")]
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text(yaml.safe_dump({"name": "p", "output_dir": str(tmp_path), "stages": stages}))
    broken = tmp_path / "broken.yaml"
    broken.write_text(Path(sft).read_text() + "learning_rat: 1\n")
    out = tmp_path / "doctor.json"
    assert doctor([str(pipeline)], CPU, json_out=out, console=Console(quiet=True))
    found = json.loads(out.read_text())
    assert list(found) == ["machine", f"{pipeline}: sft", f"{pipeline}: dpo"]
    assert {one["about"]: one["level"] for one in found[f"{pipeline}: dpo"]}["data"] == "note"
    assert not doctor([str(broken)], CPU, json_out=out, console=Console(quiet=True))
    assert "learning_rate" in json.loads(out.read_text())[str(broken)][0]["found"]


def test_a_pipelines_stage_in_one_process_has_one_device(tmp_path: Path, recipe: Callable[..., str]) -> None:
    recipe()
    judge = {"kind": "rules", "function": "operator:gt"}
    label = recipe("label", judge=judge, model_name_or_path=str(tmp_path / "run"), output_dir=str(tmp_path / "label"))
    stages = [{"name": name, "recipe": f"{name}.yaml"} for name in ("sft", "label")]
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text(yaml.safe_dump({"name": "p", "output_dir": str(tmp_path), "stages": stages}))
    many = Machine(gpus=2, strategy="zero3")
    assert doctor([str(pipeline)], many, json_out=None, console=Console(quiet=True))
    assert look(label, many)["combination"].level == "fault"  # which by itself would be started twice


def test_a_file_that_is_missing_is_not_looked_for_at_the_hub(recipe: Callable[..., str]) -> None:
    found = look(recipe(datasets=[{"path": "in/no.jsonl"}]))
    assert "Hub" not in found
    assert "in/no.jsonl does not exist" in found["data"].found


def test_keys_change_one_recipe(recipe: Callable[..., str], tmp_path: Path) -> None:
    file, console = recipe(), Console(quiet=True)
    assert doctor([file], CPU, json_out=None, console=console)
    found = tmp_path / "found.json"
    assert not doctor([file], CPU, overrides=["--max_length", "4"], json_out=found, console=console)
    assert "fault" in [finding["level"] for finding in json.loads(found.read_text())[file]]
    for paths in ([], [file, file], [str(ROOT / "recipes/tiny/pipeline.yaml")]):
        with pytest.raises(RecipeError, match="--seed: keys change one recipe; name one recipe of a stage, before"):
            doctor(paths, CPU, overrides=["--seed", "1"], json_out=None, console=console)
