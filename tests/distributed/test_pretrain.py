"""Pretraining on two processes: packed text does what one process does, and a stream is read in disjoint parts."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

import recipes.pretrain
from tests.distributed.launch import finish, start
from tests.models import save_tiny_model

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
