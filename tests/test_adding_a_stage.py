"""A stage takes three files: its schema, its script and one line in the list; every command then has it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from alignment.cli.stages import preview_reader
from alignment.config.schema import STAGES
from alignment.errors import RecipeError
from alignment.preview.command import preview
from alignment.stages import NAMES, help_texts
from tests.models import save_tiny_model
from tests.package_copy import ROOT, PackageCopy
from tests.preview.conftest import recipe as recipe

HELP = "Align a policy with rankings, without a reference."
SCHEMA = f'''
"""Odds-ratio preference optimisation: its recipe."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.recipe import Stage, TrainingRecipe


class ORPORecipe(TrainingRecipe):
    """Odds-ratio preference optimisation."""

    TRAINER_CONFIG = "transformers.training_args:TrainingArguments"
    STAGE = Stage(
        title="Odds ratios", help="{HELP}", makes="policy", rows="rankings", trains=True, held_out=True, sequences=2
    )
    stage: Literal["orpo"]
    max_length: int | None = Field(default=1024, gt=0, le=10**8)
    odds_weight: float = Field(default=0.1, ge=0, le=10**6)
'''
SCRIPT = '''
"""Odds-ratio preference optimisation, without the training."""

import sys

from alignment.config import load_recipe
from alignment.config.schema.orpo import ORPORecipe
from alignment.data import load_rows
from alignment.preview.stages import pairs
from alignment.run.directory import RunDirectory
from alignment.run.files import append_jsonl
from alignment.run.script import script

preview = pairs


def main(argv: list[str] | None = None) -> None:
    recipe = load_recipe(ORPORecipe, sys.argv[1:] if argv is None else argv)
    run = RunDirectory.open(recipe)
    loaded = load_rows(recipe)
    run.record(data=loaded.files)
    for step in (1, 2):
        append_jsonl(run.metrics_path, {"step": step, "loss": 1.0 / step})
    run.finish(rankings=len(loaded.rows), steps=2)


if __name__ == "__main__":
    script(main)
'''
# Runs each verb in a fork, as some end their process; what takes long to import is imported once.
DRIVER = """
import json, os, sys
import torch, transformers
from alignment.cli import main
codes = {}
for verb, words in json.loads(sys.argv[1]).items():
    child = os.fork()
    if not child:
        out = os.open(f"{verb}.out", os.O_CREAT | os.O_WRONLY)
        os.dup2(out, 1), os.dup2(out, 2)
        sys.argv[1:] = words
        main()
    codes[verb] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(codes))
"""
VERBS = {
    "help": ["--help"],
    "keys": ["orpo", "--help"],
    "check": ["check", "--data", "orpo.yaml"],
    "typo": ["check", "typo.yaml"],
    "plan": ["plan", "orpo.yaml", "--cpu", "--json", "plan.json"],
    "preview": ["preview", "orpo.yaml", "--json", "preview.json"],
    "doctor": ["doctor", "orpo.yaml", "--json", "doctor.json"],
    "launch": ["launch", "orpo.yaml", "--gpus", "2"],
    "rounds": ["check", "rounds.yaml"],
    "run": ["run", "pipeline.yaml"],
}


def added_to(copy: Path) -> None:
    """Add the stage to a copy of the packages."""
    (copy / "alignment/config/schema/orpo.py").write_text(SCHEMA)
    (copy / "recipes/orpo.py").write_text(SCRIPT)
    listed = copy / "alignment/stages.py"
    listed.write_text(listed.read_text().replace('    "dpo",\n', '    "dpo",\n    "orpo",\n'))


def write_recipes(folder: Path) -> None:
    rows = [{"prompt": f"question {n}?", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(8)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_tiny_model(folder / "model")
    recipe = {
        "stage": "orpo",
        "output_dir": "runs/orpo",
        "model_name_or_path": "model",
        "datasets": [{"path": "pairs.jsonl"}],
        "per_device_train_batch_size": 2,
        "max_length": 64,
    }
    (folder / "orpo.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "typo.yaml").write_text(yaml.safe_dump(recipe | {"odds_weigth": 1.0}))
    stages = [{"name": "orpo", "recipe": "orpo.yaml", "each_round": True}]
    pipeline = {"name": "added", "output_dir": "runs"}
    (folder / "rounds.yaml").write_text(yaml.safe_dump({**pipeline, "rounds": 2, "stages": stages}))
    del stages[0]["each_round"]
    (folder / "pipeline.yaml").write_text(yaml.safe_dump({**pipeline, "stages": stages}))


@pytest.fixture(scope="module")
def added(tmp_path_factory) -> tuple[Path, dict[str, tuple[int, str]], set[str]]:
    """A working folder, the output of each verb there, and the changed files of the packages."""
    packages, folder = PackageCopy(tmp_path_factory.mktemp("copy")), tmp_path_factory.mktemp("work")
    copy = packages.folder
    shutil.copytree(ROOT / "launch", copy / "launch")
    added_to(copy)
    files = set(packages.changed())
    write_recipes(folder)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(VERBS)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout.splitlines()[-1])
    return folder, {verb: (code, (folder / f"{verb}.out").read_text()) for verb, code in codes.items()}, files


def test_it_takes_three_files(added):
    assert added[2] == {"alignment/stages.py", "alignment/config/schema/orpo.py", "recipes/orpo.py"}


def test_help_lists_it_in_its_place(added):
    code, said = added[1]["help"]
    assert code == 0
    assert said.index(" dpo ") < said.index(" orpo ") < said.index(" ppo ")
    assert HELP in said


def test_its_own_help_lists_its_keys(added):
    code, said = added[1]["keys"]
    assert code == 0
    assert "  odds_weight: a number; default 0.1\n" in said


def test_check_reads_its_recipe_and_its_data(added):
    code, said = added[1]["check"]
    assert code == 0, said
    assert "orpo: pairs.jsonl: layout preference, 8 rows\n" in said
    assert said.endswith("orpo.yaml: OK\n")


def test_check_reports_its_faults(added):
    code, said = added[1]["typo"]
    assert code == 2
    assert "odds_weigth: no such key; did you mean odds_weight?" in said


def test_plan_counts_two_sequences_a_row(added):
    code, said = added[1]["plan"]
    assert code == 0, said
    (planned,) = json.loads((added[0] / "plan.json").read_text())["stages"]
    assert planned["stage"] == "orpo"
    assert set(planned["phases"]) == {"forward and backward", "optimizer step"}
    # 8 rows in microbatches of 2, three times: 12 steps of 2 rows, of 2 sequences, of 64 tokens
    assert planned["time"]["steps"] == 12
    assert planned["time"]["tokens"] == 12 * 2 * 2 * 64


def test_preview_shows_the_pairs_that_it_trains(added):
    code, said = added[1]["preview"]
    assert code == 0, said
    found = json.loads((added[0] / "preview.json").read_text())
    assert found["stage"] == "orpo"
    assert len(found["rows"]) == 8
    assert "".join(part["text"] for part in found["rows"][0]["chosen"] if part["trained"]).startswith("good 0")


def test_a_stage_without_a_preview_is_refused_in_one_line(recipe, monkeypatch):
    monkeypatch.delattr("recipes.sft.preview")
    with pytest.raises(RecipeError) as caught:
        preview(recipe("sft", [{"prompt": "Why?", "completion": "So."}]), [], None, preview_reader)
    (fault,) = caught.value.faults
    assert fault.endswith(
        "sft.yaml: stage sft has no preview, as recipes/sft.py defines no `preview`; run `alignment check --data` and "
        "`alignment doctor` to check its data"
    )


def test_every_stage_has_a_preview():
    assert all(preview_reader(name) for name in NAMES)


def test_doctor_looks_at_it(added):
    said = added[1]["doctor"][1]
    found = {one["about"]: one["level"] for one in json.loads((added[0] / "doctor.json").read_text())["orpo.yaml"]}
    assert found["model"] == found["data"] == found["lengths"] == found["template"] == "ok", said


def test_launch_starts_its_script(added):
    code, said = added[1]["launch"]
    assert code == 0, said
    assert "recipes.orpo" in said


def test_a_round_may_train_the_policy_by_it(added):
    assert added[1]["rounds"] == (0, "rounds.yaml: OK\n")


def test_a_pipeline_runs_it_and_reports_it(added):
    code, said = added[1]["run"]
    assert code == 0, said
    run = added[0] / "runs/orpo"
    assert json.loads((run / "manifest.json").read_text())["status"] == "finished"
    assert "AutoModelForCausalLM" in (run / "README.md").read_text()
    page = (added[0] / "runs/report.html").read_text()
    assert '<h3><i class="key"></i>Odds ratios<small>orpo</small></h3>' in page


def test_the_help_of_every_verb_is_that_of_its_stage():
    assert help_texts() == {name: cls.STAGE.help for name, cls in STAGES.items()}
    assert tuple(STAGES) == NAMES
