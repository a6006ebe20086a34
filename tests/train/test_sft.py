"""SFT: what is learned, what is refused, and that a killed run ends where an unbroken one does."""

import json
from types import SimpleNamespace

import pytest
import torch
import yaml
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig

import recipes.sft
from alignment.data.masks import Answer
from alignment.data.rows import Demonstration
from alignment.errors import DataError, RecipeError
from alignment.policy.inference import sequence_limit
from alignment.train.arguments import checkpointing_key
from alignment.train.sft import require_learnable, sft_trainer, tokenise_demonstrations


def arguments(path, **changes):
    settings = {
        "output_dir": str(path),
        "use_cpu": True,
        "bf16": False,
        checkpointing_key(SFTConfig): False,
        "max_length": None,
        "report_to": "none",
        "per_device_train_batch_size": 4,
        "disable_tqdm": True,
        "save_strategy": "no",
        "dataloader_pin_memory": False,
        **changes,
    }
    return SFTConfig(**settings)


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir):
    return AutoTokenizer.from_pretrained(tiny_model_dir)


@pytest.fixture
def recipe_file(tiny_model_dir, tmp_path):
    """A recipe that overfits a few questions."""
    data = tmp_path / "data.jsonl"
    rows = [{"instruction": f"What is {i}?", "input": "", "output": "Thank you for asking!"} for i in range(12)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "stage": "sft",
        "output_dir": str(tmp_path / "run"),
        "model_name_or_path": str(tiny_model_dir),
        "datasets": [{"path": str(data)}],
        "test_split_size": 0.3,
        "learning_rate": 2e-2,
        "max_steps": 6,
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
    }
    file = tmp_path / "sft.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return file


def run(file, **overrides):
    argv = ["--config", str(file)]
    for key, value in overrides.items():
        argv += [f"--{key}", str(value)]
    recipes.sft.main(argv)


def manifest(path):
    return json.loads((path / "manifest.json").read_text())


@pytest.mark.parametrize(
    "overrides",
    [{}, {"peft_method": "dora"}, {"load_in_4bit": "true"}, {"load_in_8bit": "true"}, {"peft_method": "full"}],
    ids=["lora", "dora", "qlora", "eight", "full"],
)
def test_learns_and_leaves_a_folder_that_plain_libraries_load(recipe_file, wide_model_dir, tmp_path, overrides):
    run(recipe_file, model_name_or_path=wide_model_dir, max_steps=10, save_strategy="no", **overrides)
    folder = tmp_path / "run"
    logs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [log["loss"] for log in logs if "loss" in log]
    assert losses[0] == pytest.approx(5.7, abs=0.1)  # ln 300 for a random model
    assert losses[-1] < losses[0] - 0.2  # a frozen head of 0.02 bounds what an adapter can do
    found = manifest(folder)
    assert found["status"] == "finished"
    assert found["results"]["eval_loss"] < losses[0]
    assert not [path.name for path in folder.iterdir() if path.is_dir() or path.suffix == ".bin"]
    loader = AutoModelForCausalLM if "full" in overrides.values() else AutoPeftModelForCausalLM
    model = loader.from_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(folder)("What", return_tensors="pt").input_ids
    assert torch.isfinite(model(ids).logits).all()


class KilledAt(TrainerCallback):
    """Ctrl-C in the middle of a step."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def test_a_killed_run_ends_at_the_same_weights(recipe_file, tmp_path, monkeypatch):
    common = {"lora_dropout": 0.2, "save_strategy": "steps", "save_steps": 2}
    run(recipe_file, output_dir=tmp_path / "whole", **common)
    with monkeypatch.context() as patch:
        honest = recipes.sft.callbacks_for
        patch.setattr(recipes.sft, "callbacks_for", lambda *given: [*honest(*given), KilledAt(3)])
        with pytest.raises(KeyboardInterrupt):
            run(recipe_file, output_dir=tmp_path / "killed", **common)
    assert not (tmp_path / "killed" / "adapter_model.safetensors").exists()
    run(recipe_file, output_dir=tmp_path / "killed", **common)
    whole, killed = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[key], killed[key]) for key in whole)
    steps = [json.loads(line)["step"] for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()]
    assert [step for step in steps if step < 6] == [1, 2, 3, 4, 5]


def test_early_stopping_keeps_the_best_weights(recipe_file, tmp_path):
    steps = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    steps["load_best_model_at_end"] = "true"
    run(recipe_file, early_stopping_patience=1, learning_rate=5.0, max_steps=20, **steps)  # diverges at once
    found = manifest(tmp_path / "run")
    assert found["results"]["steps"] < 20
    logs = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    evaluations = [log["eval_loss"] for log in logs if "eval_loss" in log]
    assert found["results"]["eval_loss"] == pytest.approx(min(evaluations), rel=1e-5)


def test_a_later_stage_continues_the_adapter(recipe_file, tmp_path):
    run(recipe_file, lora_r=4)
    before = load_file(tmp_path / "run" / "adapter_model.safetensors")
    run(recipe_file, model_name_or_path=tmp_path / "run", output_dir=tmp_path / "more", learning_rate=1e-9)
    after = load_file(tmp_path / "more" / "adapter_model.safetensors")
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before)
    assert manifest(tmp_path / "more")["lineage"]["adapter"] == str(tmp_path / "run")


ROWS = [
    {"input_ids": [2, 10, 11, 12, 13, 1], "labels": [-100, -100, -100, 12, 13, 1]},
    {"input_ids": [2, 20, 21, 22, 1], "labels": [-100, -100, 21, 22, 1]},
    {"input_ids": [2, 30, 31, 1], "labels": [-100, 30, 31, 1]},
]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_rows_of_a_pack_do_not_see_each_other(tiny_model_dir, tokenizer, tmp_path, attention):
    losses = {}
    for packing in (False, True):
        model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, attn_implementation=attention)
        settings = arguments(tmp_path, packing=packing, max_length=16 if packing else None)
        trainer = sft_trainer(model, tokenizer, settings, train=ROWS)
        (batch,) = trainer.get_train_dataloader()
        assert len(batch["input_ids"]) == (1 if packing else 3)
        losses[packing] = trainer.compute_loss(model, dict(batch)).item()
    # each row alone: the mean over the 3 + 3 + 3 labels of -log p
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    total = 0.0
    for row in ROWS:
        logps = model(torch.tensor([row["input_ids"]])).logits[0].double().log_softmax(-1)
        total -= sum(logps[t - 1, label].item() for t, label in enumerate(row["labels"]) if label != -100)
    assert losses[False] == pytest.approx(total / 9, rel=1e-6)
    assert losses[True] == pytest.approx(total / 9, rel=1e-6)


def test_packing_across_rows_is_refused(tiny_model_dir, tokenizer, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    settings = arguments(tmp_path, packing=True, packing_strategy="wrapped", max_length=16)
    with pytest.raises(RecipeError, match=r"packing_strategy wrapped .* use bfd"):
        sft_trainer(model, tokenizer, settings, train=ROWS)


class Fixed:
    """A template that returns the ids it is given."""

    sides = None

    def take_added_words(self):
        return ""

    def answers(self, row):
        if row.completion == "broken":
            raise DataError("the chat template refuses it")
        answer = [8] * len(row.completion)
        return [Answer([7] * len(row.prompt), answer, answer)]


def test_long_rows_are_cut_and_rows_without_answer_are_named(capsys):
    rows = [
        Demonstration("ab", "cdef", source="a.jsonl:1"),  # 6 tokens, cut to 4
        Demonstration("abcd", "e", source="a.jsonl:2"),  # nothing of the answer within 4
        Demonstration("a", "broken", source="a.jsonl:3"),
        Demonstration("a", "b", source="a.jsonl:4"),
    ]
    with pytest.raises(DataError, match=r"^a.jsonl:2: no token of the answer is among the first 4 of 5"):
        tokenise_demonstrations(rows, Fixed(), limit=4)
    result = tokenise_demonstrations(rows, Fixed(), limit=4, on_bad_row="skip")
    assert [row["labels"] for row in result.rows] == [[-100, -100, 8, 8], [-100, 8]]
    assert result.truncated == 1
    assert [fault.split(":")[1] for fault in result.skipped] == ["2", "3"]
    cut, left_out = capsys.readouterr().err.splitlines()
    assert cut.startswith("cut 1 of 4 rows to their first 4 tokens; the end of these answers is not learned")
    assert left_out.startswith(
        "left out 2 of 4 rows (on_bad_row: skip); the first is a.jsonl:2: no token of the answer"
    )


def test_nothing_to_learn_is_refused():
    with pytest.raises(DataError, match="all labels of all 2 training rows are masked"):
        require_learnable([{"labels": [-100, -100]}] * 2, [1])
    with pytest.raises(DataError, match=r"no training row teaches a stop token \(ids \[1, 5\]\)"):
        require_learnable([{"labels": [-100, 8, 9]}], [5, 1])
    require_learnable([{"labels": [-100, 8]}, {"labels": [9, 1]}], [1])


def test_the_models_context_bounds_max_length():
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(max_position_embeddings=256))
    assert sequence_limit(SimpleNamespace(config=config), 1024) == 256
    assert sequence_limit(SimpleNamespace(config=config), 100) == 100
    assert sequence_limit(SimpleNamespace(config=config), None) == 256


def test_saved_adapter_gives_the_logits_of_training(tiny_model_dir, tokenizer, tmp_path):
    from alignment.policy.base import load_causal_lm
    from alignment.train.saving import save_trained
    from tests.policy.test_merge import Keys

    ids = torch.tensor([[2, 10, 11, 12]])
    for method in ("lora", "dora"):
        keys = Keys(model_name_or_path=str(tiny_model_dir), lora_r=4, peft_method=method)
        model = load_causal_lm(keys, trainable=True, peft=keys)
        trainer = sft_trainer(model, tokenizer, arguments(tmp_path, max_steps=2, learning_rate=0.1), train=ROWS)
        trainer.train()
        (tmp_path / method).mkdir()
        save_trained(trainer, tmp_path / method)
        base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
        before = base(ids).logits.detach()
        plain = PeftModel.from_pretrained(base, tmp_path / method).eval()(ids).logits
        assert torch.equal(plain, trainer.model.eval()(ids).logits)
        assert (plain - before).abs().max() > 1e-3
