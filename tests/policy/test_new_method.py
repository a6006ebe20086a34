"""A new tuning method is two files: a module that builds its adapter, and a line of facts."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.models import save_tiny_model
from tests.package_copy import ROOT, PackageCopy

FAMILY = '''
"""IA3: PEFT's `IA3Config`."""

from collections.abc import Iterator
from typing import Any

from peft import IA3Config

from alignment.config.schema import AdapterKeys
from alignment.policy.model_files import Fault

PEFT_TYPE, PREFIX = "IA3", "ia3_"


def new_config(keys: AdapterKeys, *, task: str, modules_to_save: list[str] | None) -> IA3Config:
    return IA3Config(
        task_type=task, target_modules=keys.lora_target_modules, feedforward_modules=[], modules_to_save=modules_to_save
    )


def recipe_keys(config: IA3Config) -> dict[str, Any]:
    return {"peft_method": "ia3_everywhere"}


def faults(found: dict[str, Any]) -> Iterator[Fault]:
    yield from ()
'''
LINE = """    "ia3_everywhere": TuningMethod(
        "IA3", "ia3_everywhere", ("lora_target_modules", "lora_modules_to_save"), new_value="ia3_everywhere"
    ),
"""
STEPS = """
import json, sys
from pathlib import Path

import torch

from alignment.config import load_recipe
from alignment.errors import RecipeError
from alignment.planner.machine import Machine
from alignment.planner.memory import plan_stage
from alignment.policy.adapter_files import read_adapter_config
from alignment.policy.base import load_causal_lm
from alignment.policy.merge import merge
from recipes import reward, sft
from tests.train.ppo_runs import make_trainer, trained_weights

base, folder = sys.argv[1], Path(sys.argv[2])
facts = {}
words = ["cat", "dog", "ball", "fox"]
rows = [{"prompt": f"tell me of a {word}", "completion": f" the {word} is small"} for word in words * 2]
(folder / "sft.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
pairs = [{"prompt": f"tell me of a {word}", "chosen": f" the {word}", "rejected": " no"} for word in words * 2]
(folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in pairs))


def recipe(stage, data, **keys):
    given = {"stage": stage, "model_name_or_path": base, "output_dir": str(folder / stage),
             "peft_method": "ia3_everywhere", "datasets": [{"path": str(folder / data)}], "max_steps": 3,
             "learning_rate": 0.01, "per_device_train_batch_size": 4, "save_strategy": "no", "use_cpu": True, **keys}
    file = folder / f"{stage}.yaml"
    file.write_text(json.dumps(given))
    return ["--config", str(file)]


try:
    load_recipe("sft", recipe("sft", "sft.jsonl", use_rslora=True))
except RecipeError as error:
    facts["refused"] = str(error)
argv = recipe("sft", "sft.jsonl")
plan = plan_stage(load_recipe("sft", argv), Machine(gpu=False))
facts["planned"] = plan.trainable
sft.main(argv)
reward.main(recipe("reward", "pairs.jsonl"))
for stage in ("sft", "reward"):
    config = read_adapter_config(folder / stage)
    facts[stage] = [config.peft_type, config.task_type]

keys = load_recipe("sft", recipe("sft", "sft.jsonl", model_name_or_path=str(folder / "sft"), output_dir="again"))
continued = load_causal_lm(keys, trainable=True, peft=keys)
facts["continued"] = sum(parameter.numel() for parameter in continued.parameters() if parameter.requires_grad)
ids = torch.arange(3, 40)[None]
with torch.no_grad():
    trained, plain = continued.eval()(ids).logits, continued.get_base_model()
    with continued.disable_adapter():
        facts["adapter_moves_logits"] = float((continued(ids).logits - trained).abs().max())
merge(folder / "sft", folder / "merged")
merged = load_causal_lm(keys.model_copy(update={"model_name_or_path": str(folder / "merged")}), trainable=False)
with torch.no_grad():
    facts["merged_differs"] = float((merged.eval()(ids).logits - trained).abs().max())

saving = {"save_strategy": "steps", "save_steps": 4}
ppo = {"model_name_or_path": str(folder / "sft"), "peft_method": "ia3_everywhere", "reward": folder / "reward",
       "per_device": 4, "arguments": saving}
straight = make_trainer(Path(base), folder / "ppo", **ppo)
before = trained_weights(straight)
straight.train()
after = trained_weights(straight)
facts["first_kl"] = straight.state.log_history[0]["kl"]
facts["value_parameters"] = len(straight.roles.value_parameters())
facts["roles"] = sorted(straight.roles.adapters)
facts["moved"] = sum(not torch.equal(before[name], after[name]) for name in after) / len(after)
resumed = make_trainer(Path(base), folder / "ppo", **ppo)
resumed.train(resume_from_checkpoint=str(folder / "ppo" / "checkpoint-4"))
facts["resumed"] = all(torch.equal(tensor, after[name]) for name, tensor in trained_weights(resumed).items())
print("FACTS", json.dumps(facts))
"""


@pytest.mark.timeout(300)
def test_a_method_of_two_files_is_checked_planned_trained_continued_merged_and_aligned(tmp_path):
    copy = PackageCopy(tmp_path / "tree")
    tree = copy.folder
    (tree / "alignment" / "policy" / "methods" / "ia3_everywhere.py").write_text(FAMILY)
    table = tree / "alignment" / "config" / "methods.py"
    text = table.read_text()
    last = '    "dora": TuningMethod('
    assert text.count(last) == 1
    table.write_text(text.replace(last, LINE + last))
    assert copy.changed() == ["alignment/config/methods.py", "alignment/policy/methods/ia3_everywhere.py"]
    shutil.copytree(ROOT / "tests", tree / "tests", ignore=shutil.ignore_patterns("__pycache__"))

    base = save_tiny_model(tmp_path / "base", initializer_range=0.3)
    (tmp_path / "steps.py").write_text(STEPS)
    environment = {**os.environ, "PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, str(tmp_path / "steps.py"), str(base), str(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path, env=environment, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-4000:]
    facts = json.loads(run.stdout.partition("FACTS ")[2])
    assert (
        "use_rslora: has no effect with peft_method ia3_everywhere; take it out, or use peft_method lora or dora"
        in str(facts["refused"])
    )
    assert facts["planned"] == facts["continued"] > 0
    assert facts["sft"] == ["IA3", "CAUSAL_LM"]
    assert facts["reward"] == ["IA3", "SEQ_CLS"]
    assert facts["adapter_moves_logits"] > 1e-3
    assert facts["merged_differs"] < 1e-3
    assert facts["roles"] == ["policy", "reference", "reward", "value"]
    assert facts["first_kl"] == 0.0
    assert facts["value_parameters"] > 4  # the head and IA3's vectors
    assert facts["moved"] > 0.9
    assert facts["resumed"] is True
