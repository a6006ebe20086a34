"""A killed run goes on with what it read before: data or weights that were replaced meanwhile are refused."""

import importlib
import json

import pytest
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from alignment.errors import AlignmentError
from alignment.manifest import read_manifest
from tests.distributed.stage import make_inputs

DATA = {
    "sft": [{"prompt": f"tell me {n}", "completion": "a b c " * (1 + n % 3)} for n in range(12)],
    "reward": [{"prompt": f"tell me {n}", "chosen": "a b " * (1 + n % 3), "rejected": "c"} for n in range(12)],
    "ppo": [{"prompt": f"tell me {n}"} for n in range(12)],
}
DATA["dpo"] = DATA["reward"]


class KilledAt(TrainerCallback):
    def on_step_begin(self, args, state, control, **_):
        if state.global_step == 3:
            raise KeyboardInterrupt


def write_rows(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def save_adapter(folder, seed):
    model = AutoModelForCausalLM.from_pretrained(folder / "base")
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], init_lora_weights=seed == 0)
    get_peft_model(model, lora).save_pretrained(folder / "adapter")
    AutoTokenizer.from_pretrained(folder / "base").save_pretrained(folder / "adapter")


@pytest.fixture
def killed(request, tmp_path, monkeypatch):
    """A stage's `main` and arguments, and its folder after a kill behind the checkpoint of step 2."""
    stage = request.param
    make_inputs(tmp_path)
    save_adapter(tmp_path, 0)
    write_rows(tmp_path / "rows.jsonl", DATA[stage])
    recipe = {
        "stage": stage,
        "output_dir": str(tmp_path / "run"),
        "model_name_or_path": str(tmp_path / "adapter"),
        "datasets": [{"path": str(tmp_path / "rows.jsonl")}],
        "save_steps": 2,
        "per_device_train_batch_size": 2,
    }
    if stage == "ppo":
        recipe |= {"reward_model_path": str(tmp_path / "reward"), "total_episodes": 24, "rollout_batch_size": 4}
        recipe |= {"max_new_tokens": 4, "num_ppo_epochs": 1, "num_mini_batches": 1}
    else:
        recipe["max_steps"] = 4
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    module = importlib.import_module(f"recipes.{stage}")
    with monkeypatch.context() as patch:
        honest = module.callbacks_for
        patch.setattr(module, "callbacks_for", lambda *given: [*honest(*given), KilledAt()])
        with pytest.raises(KeyboardInterrupt):
            module.main(["--config", str(tmp_path / "r.yaml")])
    assert (tmp_path / "run" / "checkpoint-2").is_dir()
    return module.main, ["--config", str(tmp_path / "r.yaml")], tmp_path


def refusal(main, argv):
    with pytest.raises(AlignmentError, match="an interrupted run whose inputs have changed since") as caught:
        main(argv)
    return str(caught.value)


@pytest.mark.parametrize("killed", ["sft", "reward", "dpo", "ppo"], indirect=True)
def test_a_replaced_input_is_named_and_the_run_resumes_once_it_is_restored(killed):
    main, argv, folder = killed
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file() and "run" not in file.parts}
    rows = folder / "rows.jsonl"
    rows.write_text(rows.read_text().replace("tell me 1", "tell him 1"))
    assert f"data.{rows} was " in refusal(main, argv)
    rows.write_bytes(before[rows])

    save_adapter(folder, 1)
    assert "lineage.adapter_sha256 was " in refusal(main, argv)
    weights = folder / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(before[weights])

    if "ppo" in main.__module__:
        weights = folder / "reward" / "adapter_model.safetensors"
        weights.write_bytes(before[weights][:-4] + b"\0\0\0\0")
        assert "scorers[0].models[0].weights_sha256 was " in refusal(main, argv)
        weights.write_bytes(before[weights])

    main(argv)
    assert read_manifest(folder / "run")["status"] == "finished"
