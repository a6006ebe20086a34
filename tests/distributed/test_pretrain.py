"""Pretraining on two processes: packed text does what one process does, and a stream is read in disjoint parts."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import recipes.pretrain
from tests.distributed.launch import finish, start
from tests.distributed.test_stages import launch, weights
from tests.models import save_tiny_encoder, save_tiny_model, save_tiny_t5

pytestmark = pytest.mark.distributed
TEXTS = [f"The quick brown fox number {n} jumps over the lazy dog, and asks for {n} stories." for n in range(24)]


@pytest.fixture
def write(tmp_path):
    save_tiny_model(tmp_path / "model")
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))

    def make(name, **keys):
        recipe = {
            "stage": "pretrain",
            "output_dir": str(tmp_path / name),
            "model_name_or_path": str(tmp_path / "model"),
            "datasets": [{"path": str(tmp_path / "text.jsonl")}],
            "learning_rate": 0.1,
            "optim": "sgd",
            "max_steps": 3,
            "max_length": 64,
            "save_steps": 3,
            **keys,
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        return str(tmp_path / f"{name}.yaml")

    return make


def on_two(recipe, folder):
    finish(start(["-m", "recipes.pretrain", "--config", recipe], 2, folder / "log"), folder / "log")


def test_two_processes_train_packed_text_as_one_does(write, tmp_path):
    recipes.pretrain.main(["--config", write("one", per_device_train_batch_size=4)])
    on_two(write("two", per_device_train_batch_size=2), tmp_path)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    before = load_file(tmp_path / "model" / "model.safetensors")
    assert all(torch.allclose(one[key], two[key], atol=1e-6) for key in one)
    assert any((one[key] - before[key]).abs().max() > 1e-3 for key in one)


def test_each_process_reads_its_part_of_a_stream(write, tmp_path):
    given = write("stream", streaming=True, shuffle_buffer_size=4, per_device_train_batch_size=1)
    on_two(given, tmp_path)
    counters = torch.load(tmp_path / "stream" / "checkpoint-3" / "counters.pt", weights_only=True)
    first, second = (each["own"]["stream"]["buffer"] for each in counters)
    assert first
    assert not {tuple(ids) for ids, *_ in first} & {tuple(ids) for ids, *_ in second}


SHARDED = {
    "causal": {},
    "masked": {"objective": "masked"},
    "seq2seq": {"objective": "seq2seq"},
    "lora": {"peft_method": "lora"},
    "stream": {"streaming": True, "shuffle_buffer_size": 4},
}
FULL = {"optim": "adamw_torch", "learning_rate": 1e-2, "adam_epsilon": 1e-3, "max_steps": 5, "logging_steps": 1}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_shards_of_fsdp2_learn_what_one_process_learns_and_resume(write, tmp_path):
    save_tiny_encoder(tmp_path / "masked", width=64)
    save_tiny_t5(tmp_path / "seq2seq", width=64)

    def job(name, out, processes, **more):
        keys = SHARDED[name]
        model = tmp_path / keys.get("objective", "model")
        size = {"per_device_train_batch_size": 4 // processes}
        recipe = write(out, model_name_or_path=str(model), **FULL, **size, **keys)
        return {"stage": "pretrain", "recipe": recipe, "out": str(tmp_path / out), **more}

    launch("single", [job(name, f"{name}-one", 1) for name in SHARDED], tmp_path / "single", processes=1)
    jobs = []
    refused = [job(name, f"{name}-two", 2, may_be_refused=True) for name in ("masked", "seq2seq")]
    sharded = [name for name in SHARDED if name not in ("masked", "seq2seq")]
    for name in sharded:
        jobs.append(job(name, f"{name}-two", 2))
        jobs.append(job(name, f"{name}-again", 2, copy_of=str(tmp_path / f"{name}-two")))
    launch("fsdp2", [*jobs, *refused], tmp_path / "fsdp2", processes=2)
    for each in refused:
        assert Path(f"{each['out']}.refused").read_text().startswith("FSDP2 cannot split ")
    for name in sharded:
        one, two, again = (weights(tmp_path / f"{name}-{how}") for how in ("one", "two", "again"))
        assert json.loads((tmp_path / f"{name}-two.facts.json").read_text())["engine"] == "FSDP"
        assert all(torch.equal(two[key], again[key]) for key in two), name
        if name != "stream":  # whose processes read other rows than one would
            assert all(torch.allclose(one[key], two[key], atol=1e-4) for key in one), name
