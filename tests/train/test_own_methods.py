"""The tuning methods of our own in every stage: trained, continued, resumed, merged, and in PPO's roles."""

import json
import math
import subprocess
import sys

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from alignment.config import load_recipe
from alignment.errors import AlignmentError, ModelError, RecipeError
from alignment.policy.adapter_files import read_adapter_config
from alignment.policy.base import load_causal_lm
from alignment.policy.merge import merge
from alignment.train.tuning import method_callbacks
from recipes import dpo, reward, sft
from tests.models import save_tiny_model
from tests.train.ppo_runs import make_trainer, trained_weights

IDS = torch.arange(3, 40)[None]
METHODS = {
    "bottleneck": ({"bottleneck_size": 4}, "BOTTLENECK", "cannot be added"),
    "freeze": ({"trainable_layers": 1}, "LN_TUNING", 0.0),
    "bitfit": ({"new_biases": True}, "BEFT", "cannot be added"),
    "fishmask": ({"num_samples": 4}, "SHIRA", 0.0),
    "child_tuning_d": ({"num_samples": 4}, "SHIRA", 0.0),
    "dylora": ({}, "LORA", 1e-3),
    "child_tuning": ({}, None, None),
}
# One method of each kind: layers of its own, the base's weights, a mask over them. The others train as one of these.
FAST = ("bottleneck", "freeze", "fishmask")
EACH = [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in METHODS]
WORDS = ["cat", "dog", "ball", "fox"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "base"
    return save_tiny_model(folder, initializer_range=0.3, hidden_size=64)


def recipe_of(folder, base, stage, method, **keys):
    rows = {
        "sft": [{"prompt": f"tell me of a {w}", "completion": f" the {w} is small"} for w in WORDS * 2],
        "pairs": [{"prompt": f"tell me of a {w}", "chosen": f" the {w}", "rejected": " no"} for w in WORDS * 2],
    }["sft" if stage == "sft" else "pairs"]
    data, file = folder / f"{stage}.jsonl", folder / f"{stage}.yaml"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {
        "stage": stage, "model_name_or_path": str(base), "output_dir": str(folder / stage), "peft_method": method,
        "peft_config": METHODS[method][0], "datasets": [{"path": str(data)}], "max_steps": 4, "learning_rate": 0.01,
        "per_device_train_batch_size": 4, "save_strategy": "no", "logging_steps": 1, "use_cpu": True, **keys,
    }  # fmt: skip
    file.write_text(json.dumps(given))
    return ["--config", str(file)]


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def first_loss(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return next(line["loss"] for line in lines if "loss" in line)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", EACH)
def test_a_method_trains_in_every_stage(method, base, tmp_path):
    keys, kind, merged = METHODS[method]
    sft.main(recipe_of(tmp_path, base, "sft", method))
    dpo.main(recipe_of(tmp_path, tmp_path / "sft", "dpo", method))
    assert first_loss(tmp_path / "dpo") == pytest.approx(math.log(2), abs=1e-5)
    if kind is not None:
        reward.main(recipe_of(tmp_path, base, "reward", method))
        assert [read_adapter_config(tmp_path / run).peft_type for run in ("sft", "reward", "dpo")] == [kind] * 3
        argv = recipe_of(tmp_path, tmp_path / "sft", "sft", method, output_dir=str(tmp_path / "again"))
        ours = logits(load_causal_lm(load_recipe("sft", argv), trainable=False))
        plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "sft")
        assert torch.equal(logits(plain), ours)
        with plain.disable_adapter():
            assert not torch.equal(logits(plain), ours)
        if isinstance(merged, str):
            with pytest.raises(ModelError, match=merged):
                merge(tmp_path / "sft", tmp_path / "merged")
        else:
            assert merge(tmp_path / "sft", tmp_path / "merged") <= merged

    ppo = {"model_name_or_path": str(tmp_path / "sft"), "peft_method": method, "peft_config": keys, "per_device": 4,
           **({"lora_r": 16} if method == "dylora" else {}),  # the adapter's
           "reward": None if kind is None else tmp_path / "reward",
           "arguments": {"save_strategy": "steps", "save_steps": 4}}  # fmt: skip

    def trainer():
        found = make_trainer(base, tmp_path / "ppo", **ppo)
        for callback in method_callbacks(found.recipe, found.roles):
            found.add_callback(callback)
        return found

    straight = trainer()
    before = trained_weights(straight)
    straight.train()
    after = trained_weights(straight)
    assert straight.state.log_history[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert sum(not torch.equal(before[name], after[name]) for name in after) > 0.9 * len(after)
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "ppo" / "checkpoint-4"))
    assert all(torch.equal(tensor, after[name]) for name, tensor in trained_weights(resumed).items())


@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_fine_tuning_resumes_to_the_same_bits(method, base, tmp_path):
    argv = recipe_of(tmp_path, base, "sft", method, save_strategy="steps", save_steps=2, save_total_limit=5)
    sft.main(argv)
    (file,) = [*(tmp_path / "sft").glob("adapter_model.safetensors"), *(tmp_path / "sft").glob("model.safetensors")]
    straight = load_file(file)
    run = tmp_path / "sft"
    for each in run.iterdir():  # as a run that was killed after its second step
        if each.name in ("checkpoint-4", file.name, "whole.json"):
            (each.rename(tmp_path / each.name) if each.is_dir() else each.unlink())
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    first = (run / "checkpoint-2" / "counters.pt").stat().st_mtime_ns
    sft.main(argv)
    assert (run / "checkpoint-2" / "counters.pt").stat().st_mtime_ns == first  # it went on from there
    assert all(torch.equal(tensor, straight[name]) for name, tensor in load_file(file).items())


def test_fish_masks_change_the_fraction_and_no_more(base, tmp_path):
    sft.main(recipe_of(tmp_path, base, "sft", "fishmask"))
    merge(tmp_path / "sft", tmp_path / "merged")
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "merged"))
    total = sum(tensor.numel() for tensor in before.values())
    assert sum(int((before[name] != after[name]).sum()) for name in before) == int(0.02 * total)


@pytest.mark.parametrize(
    ("method", "keys", "message"),
    [
        ("fishmask", {"fraction": 0}, "fraction: must be more than 0 and at most 1, found 0"),
        ("fishmask", {"fraction": 1.5}, "fraction: must be more than 0 and at most 1, found 1.5"),
        ("fishmask", {"num_samples": 0}, "num_samples: must be 1 or more, found 0"),
        ("child_tuning", {"reserve_p": 0}, "reserve_p: must be more than 0 and at most 1, found 0"),
        ("child_tuning", {"fraction": 0.1}, "fraction: is not a field of ChildTuningKeys"),
        ("bottleneck", {"bottleneck_size": 0}, "bottleneck_size: must be from 1 to 65536, found 0"),
        ("bottleneck", {"placement": "parallel"}, "placement: must be one of houlsby, pfeiffer, found"),
        ("freeze", {"trainable_layers": 0}, "trainable_layers: is 0; give a number of layers"),
        ("freeze", {"layers": 2}, "layers: is not a field of FreezeKeys"),
        ("dylora", {"r": 0}, "r: must be from 1 to 65536, found 0"),
        ("bitfit", {"new_biases": 1}, "new_biases: must be true or false"),
    ],
)
def test_wrong_keys_are_refused_before_anything_loads(method, keys, message, base, tmp_path):
    with pytest.raises(RecipeError, match="peft_config") as found:
        load_recipe("sft", recipe_of(tmp_path, base, "sft", method, peft_config=keys))
    assert message in str(found.value)


@pytest.mark.parametrize(
    ("method", "keys", "message"),
    [
        ("freeze", {"trainable_layers": 3}, "trainable_layers is 3; the model has 2 layers"),
        ("freeze", {"trainable_layers": ["layers.7"]}, "the model has no module layers.7"),
        ("bitfit", {}, "LlamaForCausalLM has no biases"),
        ("fishmask", {"fraction": 1.0}, "weights are too many for a sparse adapter"),
        ("bottleneck", {"target_modules": ["no_proj"]}, "no_proj"),
        ("fishmask", {"target_modules": ["no_proj"]}, "no_proj"),
    ],
)
def test_places_that_the_model_lacks_are_refused(method, keys, message, base, tmp_path):
    with pytest.raises(AlignmentError) as found:
        sft.main(recipe_of(tmp_path, base, "sft", method, peft_config=keys))
    assert message in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("method", ["bottleneck", "freeze", "bitfit", "fishmask", "child_tuning_d", "dylora"])
def test_a_method_trains_beside_a_base_in_4_bits(method, base, tmp_path):
    sft.main(recipe_of(tmp_path, base, "sft", method, load_in_4bit=True))
    tensors = load_file(tmp_path / "sft" / "adapter_model.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_freeze_holds_its_layers_in_float32_and_unquantised_beside_a_base_in_4_bits(dtype, base, tmp_path):
    argv = recipe_of(tmp_path, base, "sft", "freeze", load_in_4bit=True, dtype=dtype)
    keys = load_recipe("sft", argv)
    model = load_causal_lm(keys, trainable=True, peft=keys).base_model.model.model
    for wrapper in (model.layers[1].mlp.up_proj, model.layers[1].input_layernorm):
        assert wrapper.ln_tuning_layers["default"].weight.dtype == torch.float32
        assert wrapper.base_layer.weight.is_floating_point()
    assert type(model.layers[0].mlp.up_proj.weight).__name__ == "Params4bit"


def test_a_frozen_base_in_4_bits_aligns_by_ppo_and_merges(base, tmp_path):
    sft.main(recipe_of(tmp_path, base, "sft", "freeze", load_in_4bit=True))
    assert merge(tmp_path / "sft", tmp_path / "merged") < 1e-3
    trainer = make_trainer(
        base, tmp_path / "ppo", model_name_or_path=str(tmp_path / "sft"), peft_method="freeze",
        peft_config={"trainable_layers": 1}, load_in_4bit=True, updates=1, per_device=4,
    )  # fmt: skip
    trainer.train()
    assert trainer.state.log_history[0]["kl"] == 0.0


def test_a_cut_adapter_is_merged_at_its_rank(base, tmp_path):
    sft.main(recipe_of(tmp_path, base, "sft", "dylora", lora_r=8))
    command = [sys.executable, "-m", "alignment.cli", "merge", str(tmp_path / "sft")]
    subprocess.run([*command, str(tmp_path / "merged"), "--rank", "3"], check=True)
    report = json.loads((tmp_path / "merged" / "merge.json").read_text())
    assert (report["rank"], report["adapter"]) == (3, str(tmp_path / "sft"))
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "merged"))
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.linalg.matrix_rank((after[name] - before[name]).double(), rtol=1e-3) == 3
    refused = subprocess.run(
        [*command, str(tmp_path / "other"), "--rank", "9"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].endswith("has rank 8: give 1 to 8.")
    assert not (tmp_path / "other").exists()
