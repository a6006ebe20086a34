"""Rounds with tiny models: every round samples from the policy that the last one trained, and says so."""

import importlib
import io
import json

import pytest
import yaml
from rich.console import Console
from safetensors.torch import load_file

from alignment.config import load_pipeline
from alignment.pipeline.runner import run_pipeline
from alignment.run.inputs import dependencies
from tests.models import save_tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
COMMON = {"per_device_train_batch_size": 4, "lora_r": 2, "learning_rate": 0.05}


def prefer(prompt, first, second):
    """The judge: more of the letter e is better."""
    return 0.9 if first.count("e") > second.count("e") else 0.1 if first.count("e") < second.count("e") else 0.5


def write_pipeline(folder, *names):
    save_tiny_model(folder / "base", initializer_range=0.3)
    rows = [{"prompt": [{"role": "user", "content": f"tell me {number}"}]} for number in range(8)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    base, prompts = str(folder / "base"), [{"path": str(folder / "prompts.jsonl")}]
    labels = [{"path": f"{folder}/runs/label/labels.jsonl"}]
    recipes = {
        "label": {
            "datasets": prompts, "judge": {"kind": "rules", "function": f"{__name__}:prefer"}, "num_generations": 3,
            "max_new_tokens": 5,
        },
        "reward": {"datasets": labels, "num_train_epochs": 1, **COMMON},
        "dpo": {"datasets": labels, "num_train_epochs": 1, **COMMON},
        "ppo": {
            "datasets": prompts, "reward_model_path": f"{folder}/runs/reward", "total_episodes": 16,
            "rollout_batch_size": 8, "max_new_tokens": 5, "num_ppo_epochs": 1, **COMMON,
        },
    }  # fmt: skip
    stages = []
    for name in names:
        recipe = {"stage": name, "output_dir": f"{folder}/runs/{name}", "model_name_or_path": base} | recipes[name]
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        stages.append({"name": name, "recipe": f"{name}.yaml", "each_round": True})
    whole = {"name": "x", "output_dir": f"{folder}/runs", "rounds": 2, "stages": stages}
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(whole))
    return str(folder / "pipeline.yaml")


@pytest.mark.parametrize("names", [("label", "dpo"), ("label", "reward", "ppo")], ids=["dpo", "ppo"])
def test_every_round_samples_from_the_newest_policy_and_keeps_its_labels(tmp_path, names):
    pipeline = load_pipeline(write_pipeline(tmp_path, *names))
    for stage in pipeline.stages:
        importlib.import_module(stage.arguments[0]).main(list(stage.arguments[1:]))
    runs, policy = tmp_path / "runs", names[-1]
    manifests = [json.loads((runs / f"label.round{n}" / "manifest.json").read_text()) for n in (1, 2)]
    assert [manifest["policy"]["path"] for manifest in manifests] == [f"{tmp_path}/base", f"{runs}/{policy}.round1"]
    assert manifests[0]["policy"]["sha256"] != manifests[1]["policy"]["sha256"]
    labels = [
        [json.loads(line) for line in (runs / f"label.round{n}" / "labels.jsonl").read_text().splitlines()]
        for n in (1, 2)
    ]
    for number, manifest in enumerate(manifests, 1):
        for row in labels[number - 1]:
            assert row["provenance"]["round"] == number
            assert row["provenance"]["policy"] == manifest["policy"]
    assert [row["responses"] for row in labels[0]] != [row["responses"] for row in labels[1]]
    second = json.loads((runs / f"{policy}.round2" / "manifest.json").read_text())
    assert second["recipe"]["round"] == 2
    assert second["lineage"]["adapter"] == f"{runs}/{policy}.round1"
    weights = [load_file(runs / f"{policy}.round{n}" / "adapter_model.safetensors") for n in (1, 2)]
    assert any(not weights[0][name].equal(weights[1][name]) for name in weights[0])
    if policy == "ppo":
        assert second["recipe"]["reward_model_path"] == f"{runs}/reward.round2"

    said = io.StringIO()  # all is done by hand, and a pipeline takes it as it is
    assert run_pipeline(str(tmp_path / "pipeline.yaml"), console=Console(file=said, width=200)) == 0
    assert said.getvalue().count("unchanged, skipped") == 2 * len(names)
    assert "label.round2" in (runs / "report.html").read_text()
    later = {stage.name: dependencies(stage) for stage in pipeline.stages}
    (runs / "label.round2" / "labels.jsonl").write_text("")
    stale = {stage.name for stage in pipeline.stages if dependencies(stage) != later[stage.name]}
    assert stale == {f"{names[1]}.round2"}  # the first round knows nothing of it
