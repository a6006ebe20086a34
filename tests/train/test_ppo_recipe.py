"""The PPO stage as a user runs it: run directory, reward models of every kind, a kill and the same command again."""

import json

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from alignment.errors import AlignmentError
from alignment.train.policy_gradient import trainer
from recipes import ppo as recipe_script
from recipes.ppo import main
from tests.models import save_tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def save_reward(base, path, *, adapter):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=0)
    if adapter:
        model = get_peft_model(
            model, LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear", modules_to_save=["score"])
        )
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(base).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe")
    save_tiny_model(path / "base", initializer_range=0.3, hidden_size=64)
    save_tiny_model(path / "other", seed=5, hidden_size=16)
    save_reward(path / "base", path / "reward", adapter=True)
    save_reward(path / "other", path / "other-reward", adapter=False)
    sft = get_peft_model(
        AutoModelForCausalLM.from_pretrained(path / "base"),
        LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"),
    )
    sft.save_pretrained(path / "sft")
    AutoTokenizer.from_pretrained(path / "base").save_pretrained(path / "sft")
    rows = [{"prompt": [{"role": "user", "content": f"tell me {number}"}]} for number in range(12)]
    (path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_recipe(folder, out, **keys):
    recipe = {
        "stage": "ppo", "output_dir": str(out), "model_name_or_path": str(folder / "sft"),
        "reward_model_path": str(folder / "reward"), "datasets": [{"path": str(folder / "prompts.jsonl")}],
        "total_episodes": 24, "rollout_batch_size": 8, "max_new_tokens": 6, "num_ppo_epochs": 2, "num_mini_batches": 2,
        "per_device_train_batch_size": 2, "learning_rate": 1e-3, "num_sample_generations": 3, "save_steps": 3, **keys,
    }  # fmt: skip
    file = out.parent / f"{out.name}.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return ["--config", str(file)]


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"value_model": "head", "load_in_4bit": True},
        {"reward_model_path": "other-reward", "gradient_checkpointing": True},
        {"model_name_or_path": "base", "peft_method": "full", "missing_eos_penalty": 1.0},
    ],
    ids=["roles", "4bit", "own-reward", "full"],
)
def test_the_stage_leaves_a_plain_policy_and_a_record(folder, tmp_path, keys):
    places = {key: str(folder / keys[key]) for key in ("reward_model_path", "model_name_or_path") if key in keys}
    main(write_recipe(folder, tmp_path / "run", **{**keys, **places}))
    run = tmp_path / "run"
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["prompts"] == 12
    assert {"first_score", "score", "kl", "answer_tokens", "distinct_answers"} <= manifest["results"].keys()
    logged = [row for row in rows(run / "metrics.jsonl") if "score" in row]
    assert [row["step"] for row in logged] == [4, 8, 12]
    assert logged[0]["kl"] == pytest.approx(0, abs=1e-4)
    samples = rows(run / "samples.jsonl")
    assert {"step", "prompt", "answer", "score"} <= samples[0].keys()
    assert [row["step"] for row in samples] == [0] * 4 + [4] * 4 + [8] * 4
    if keys.get("peft_method") == "full":
        AutoModelForCausalLM.from_pretrained(run)
    else:
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder / "base"), run)
    with pytest.raises(AlignmentError, match="holds a finished run"):
        main(write_recipe(folder, tmp_path / "run", **{**keys, **places}))


class Killed(BaseException):
    pass


OUTSIDE = {"value_model": "model", "value_model_path": "base", "value_peft_method": "full"}
OUTSIDE |= {"scorers": [{"kind": "function", "function": f"{__name__}:length"}], "reward_model_path": None}


def length(prompts, answers):
    return [len(answer) / 10 for answer in answers]


@pytest.mark.parametrize("keys", [{}, OUTSIDE], ids=["roles", "own-value"])
def test_a_killed_stage_goes_on_by_the_same_command(folder, tmp_path, monkeypatch, keys):
    keys = keys | ({"value_model_path": str(folder / keys["value_model_path"])} if keys else {})
    main(write_recipe(folder, tmp_path / "straight", **keys))
    step = trainer.PPOTrainer.training_step

    def deadly(self, *args, **kwargs):
        if self.state.global_step == 8:
            raise Killed
        return step(self, *args, **kwargs)

    argv = write_recipe(folder, tmp_path / "killed", **keys)
    with monkeypatch.context() as patch:
        patch.setattr(trainer.PPOTrainer, "training_step", deadly)
        with pytest.raises(Killed):
            main(argv)
    assert (tmp_path / "killed" / "checkpoint-6" / "whole.json").is_file()
    main(argv)
    straight, killed = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("straight", "killed"))
    assert all(torch.equal(straight[name], killed[name]) for name in straight)
    samples = [rows(tmp_path / name / "samples.jsonl") for name in ("straight", "killed")]
    assert samples[0] == samples[1]
    steps = [[row["step"] for row in rows(tmp_path / name / "metrics.jsonl")] for name in ("straight", "killed")]
    assert steps[0] == steps[1]


def test_a_reward_that_is_not_a_number_stops_the_run_and_keeps_the_last_checkpoint(folder, tmp_path, monkeypatch):
    from alignment.policy.roles import Roles

    scores = Roles.scores

    def broken(self, *args):
        self.calls = getattr(self, "calls", 0) + 1
        return scores(self, *args) * (float("nan") if self.calls > 4 else 1.0)

    monkeypatch.setattr(Roles, "scores", broken)
    with pytest.raises(AlignmentError, match=r"not a finite number at step 5; .*checkpoint-3"):
        main(write_recipe(folder, tmp_path / "run"))
    weights = load_file(tmp_path / "run" / "checkpoint-3" / "adapter_model.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
    assert not (tmp_path / "run" / "adapter_model.safetensors").exists()


def test_only_the_roles_load_after_the_arguments_by_which_zero_3_cuts_weights(folder, tmp_path, monkeypatch):
    order = []

    def noting(name, do):
        def noted(*given, **keys):
            order.append(name)
            return do(*given, **keys)

        return noted

    for name in ("build_monitor", "build_scoring", "training_arguments", "load_roles"):
        monkeypatch.setattr(f"recipes.ppo.{name}", noting(name, getattr(recipe_script, name)))
    main(write_recipe(folder, tmp_path / "run", reward_model_path=str(folder / "other-reward"), total_episodes=8))
    first = order.index("training_arguments")
    assert set(order[:first]) == {"build_monitor", "build_scoring"}
    assert set(order[first:]) == {"training_arguments", "load_roles"}
