"""Soft prompts go through every stage: fine-tuning, a reward model, DPO (test_dpo_methods.py) and PPO."""

import json

import pytest
import torch
from safetensors.torch import load_file

from alignment.config import load_recipe
from alignment.config.schema import ModelKeys
from alignment.doctor.recipe import examine
from alignment.doctor.rows import limit_of
from alignment.errors import DataError, ModelError
from alignment.planner.machine import Machine
from alignment.planner.memory import plan_stage
from alignment.policy.base import load_causal_lm, load_sequence_classifier
from alignment.policy.load_roles import load_roles
from recipes import dpo, label, reward, sft
from tests.models import save_tiny_model
from tests.train.ppo_runs import make_trainer, trained_weights
from tests.train.test_ppo import KillAfter, Killed
from tests.train.test_sft import KilledAt

METHODS = {
    "prompt_tuning": {},
    "p_tuning": {},
    "p_tuning-lstm": {"encoder_reparameterization_type": "LSTM"},
    "prefix_tuning": {},
    "p_tuning_v2": {},
}
WORDS = ["cat", "dog", "ball", "fox"]
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("prompts") / "base", initializer_range=0.3)


@pytest.fixture(params=METHODS)
def method(request):
    name = request.param.partition("-")[0]
    return {"peft_method": name, "peft_config": {"num_virtual_tokens": 4, **METHODS[request.param]}}


def run(main, stage, base, folder, data, **keys):
    rows = folder / f"{stage}.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in data))
    given = {"stage": stage, "model_name_or_path": str(base), "output_dir": str(folder / stage),
             "datasets": [{"path": str(rows)}], "max_steps": 6, "learning_rate": 0.01, "use_cpu": True,
             "per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 4, "logging_steps": 1,
             **keys}  # fmt: skip
    file = folder / f"{stage}.yaml"
    file.write_text(json.dumps(given))
    main(["--config", str(file)])
    return folder / stage


def demonstrations():
    return [{"prompt": f"tell me of a {word}", "completion": f" the {word} is small"} for word in WORDS * 4]


def pairs():
    return [{"prompt": f"tell me of a {word}", "chosen": f" the {word} is", "rejected": " no"} for word in WORDS * 4]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_killed_fine_tuning_ends_with_the_same_bits(base, method, tmp_path, monkeypatch, checkpointing):
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    keys = {**method, "gradient_checkpointing": checkpointing}
    straight = run(sft.main, "sft", base, tmp_path / "straight", demonstrations(), **keys)
    from alignment.train import sft as training

    build = training.sft_trainer
    with monkeypatch.context() as patch:
        patch.setattr("recipes.sft.sft_trainer", lambda *a, **k: with_callback(build(*a, **k), KilledAt(5)))
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(sft.main, "sft", base, tmp_path / "killed", demonstrations(), **keys)
    resumed = run(sft.main, "sft", base, tmp_path / "killed", demonstrations(), **keys)
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (resumed, straight))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    losses = [json.loads(line)["loss"] for line in (straight / "metrics.jsonl").read_text().splitlines()
              if '"loss"' in line]  # fmt: skip
    assert losses[-1] < losses[0]


def with_callback(trainer, callback):
    trainer.add_callback(callback)
    return trainer


def test_a_reward_model_with_a_soft_prompt_does_not_heed_padding(base, method, tmp_path):
    folder = run(reward.main, "reward", base, tmp_path, pairs(), **method)
    model = load_sequence_classifier(ModelKeys(model_name_or_path=str(folder)), trainable=False).eval()
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        alone = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        padded = torch.nn.functional.pad(ids, (0, 5), value=model.config.pad_token_id or 0)
        mask = torch.nn.functional.pad(torch.ones_like(ids), (0, 5))
        torch.testing.assert_close(model(input_ids=padded, attention_mask=mask).logits, alone)


def test_ppo_starts_at_its_reference_and_a_killed_run_ends_with_the_same_bits(base, method, tmp_path):
    runs = tmp_path / "stages"
    runs.mkdir()
    scored = run(reward.main, "reward", base, runs, pairs(), **method)
    arguments = {"save_strategy": "steps", "save_steps": 3}
    keys = {**method, "reward": scored, "updates": 3, "per_device": 4, "arguments": arguments}
    straight = make_trainer(base, tmp_path / "straight", **keys)
    before = trained_weights(straight)
    straight.train()
    after = trained_weights(straight)
    assert straight.state.log_history[0]["kl"] == 0.0
    assert all(not torch.equal(before[name], after[name]) for name in after if "embedding" in name)
    killed = make_trainer(base, tmp_path / "killed", callbacks=[KillAfter(8)], **keys)
    with pytest.raises(Killed):
        killed.train()
    torch.manual_seed(99)
    resumed = make_trainer(base, tmp_path / "killed", **keys)
    resumed.train(resume_from_checkpoint=str(tmp_path / "killed" / "checkpoint-6"))
    assert all(torch.equal(weight, after[name]) for name, weight in trained_weights(resumed).items())
    straight.save_model(str(tmp_path / "saved"))
    saved = load_causal_lm(ModelKeys(model_name_or_path=str(tmp_path / "saved")), trainable=False).eval()
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(saved(input_ids=ids).logits, straight.roles.policy_lm(input_ids=ids).logits)


def test_roles_of_a_soft_prompt_start_from_a_fine_tuned_one(base, method, tmp_path):
    tuned = run(sft.main, "sft", base, tmp_path, demonstrations(), **method)
    model = load_causal_lm(ModelKeys(model_name_or_path=str(tuned)), trainable=False).eval()
    trainer = make_trainer(tuned, tmp_path / "ppo", updates=1, peft_method=method["peft_method"])
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        assert torch.equal(trainer.roles.policy_lm(input_ids=ids).logits, model(input_ids=ids).logits)
    trainer.train()
    assert trainer.state.log_history[0]["kl"] == 0.0


def test_a_soft_prompt_takes_its_positions_from_every_limit(tmp_path, capsys):
    base = save_tiny_model(tmp_path / "base", max_position_embeddings=32)
    method = {"peft_method": "prompt_tuning", "peft_config": {"num_virtual_tokens": 8}}
    long = {"prompt": "tell me of a cat", "completion": " the cat is small" * 10}
    folder = run(sft.main, "sft", base, tmp_path, [*demonstrations(), long], **method, max_length=64)
    told = "sequences have at most 24 tokens: the model's context is 32, the soft prompt 8"
    assert told in capsys.readouterr().err
    assert json.loads((folder / "manifest.json").read_text())["train"]["rows_truncated"] == 1
    longer = [{"prompt": long["prompt"], "chosen": long["completion"], "rejected": " no"}]
    with pytest.raises(
        DataError, match=r"where max_length and the model's context leave room for \d+ after the prompt"
    ):
        run(dpo.main, "dpo", folder, tmp_path, [*pairs(), *longer])
    recipe = load_recipe("sft", ["--config", str(tmp_path / "sft.yaml")])
    assert limit_of(recipe) == 24
    assert plan_stage(recipe, Machine(gpu=False)).lengths.whole == 24
    trainer = make_trainer(base, tmp_path / "ppo", **method)
    assert trainer.roles.context == 24


def test_a_soft_prompt_without_room_is_refused_before_the_model_loads(tmp_path, monkeypatch):
    base = save_tiny_model(tmp_path / "base", max_position_embeddings=32)
    monkeypatch.setattr("alignment.policy.base.load_base", lambda *_, **__: pytest.fail("the model was loaded"))
    long = {"peft_method": "prompt_tuning", "peft_config": {"num_virtual_tokens": 32}}
    message = r"num_virtual_tokens is 32 and the model's context has 32 tokens, which leaves none for a prompt"
    with pytest.raises(ModelError, match=message):
        run(sft.main, "sft", base, tmp_path, demonstrations(), **long)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n')
    given = {"stage": "ppo", "model_name_or_path": str(base), "output_dir": str(tmp_path / "ppo"), "use_cpu": True,
             "datasets": [{"path": str(tmp_path / "prompts.jsonl")}], "max_new_tokens": 26, "total_episodes": 64,
             "reward_model_path": str(base), "peft_method": "prefix_tuning",
             "peft_config": {"num_virtual_tokens": 8}}  # fmt: skip
    (tmp_path / "ppo.yaml").write_text(json.dumps(given))
    recipe = load_recipe("ppo", ["--config", str(tmp_path / "ppo.yaml")])
    with pytest.raises(ModelError, match=r"is 8, max_new_tokens is 26, and the model's context has 32 tokens"):
        load_roles(recipe)
    faults = [finding for finding in examine(recipe, Machine(gpu=False)) if finding.level == "fault"]
    found = {each.about: each.found for each in faults}
    assert found.keys() == {"adapter", "lengths"}
    assert "max_new_tokens is 26" in found["adapter"]
    assert found["lengths"] == "max_new_tokens 26 leaves no room for a prompt: the model reads 24 tokens"


def test_labelling_counts_the_positions_of_the_policys_soft_prompt(tmp_path):
    base = save_tiny_model(tmp_path / "base", max_position_embeddings=32)
    method = {"peft_method": "prompt_tuning", "peft_config": {"num_virtual_tokens": 8}}
    tuned = run(sft.main, "sft", base, tmp_path, demonstrations(), **method)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "tell me of a cat"}\n')
    given = {"stage": "label", "model_name_or_path": str(tuned), "output_dir": str(tmp_path / "label"),
             "datasets": [{"path": str(prompts)}], "max_new_tokens": 20,
             "judge": {"kind": "rules", "function": "tests.doctor.trying:prefer"}}  # fmt: skip
    (tmp_path / "label.yaml").write_text(json.dumps(given))
    with pytest.raises(DataError, match="with max_new_tokens 20 that is more than the model's context of 24"):
        label.main(["--config", str(tmp_path / "label.yaml")])


@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_a_plan_counts_what_trains(base, method, tmp_path, stage):
    given = {"stage": stage, "model_name_or_path": str(base), "output_dir": str(tmp_path / "run"),
             "datasets": [{"path": str(tmp_path / "rows.jsonl")}], "use_cpu": True, **method}  # fmt: skip
    if stage == "ppo":
        given |= {"reward_model_path": str(base), "total_episodes": 64, "value_model": "head"}
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(given))
    recipe = load_recipe(stage, ["--config", str(file)])
    keys = ModelKeys(model_name_or_path=str(base))
    model = load_causal_lm(keys, trainable=True, peft=recipe)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert plan_stage(recipe, Machine(gpu=False)).trainable == trained + (32 if stage == "ppo" else 0)
