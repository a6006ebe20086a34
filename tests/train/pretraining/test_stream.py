"""Streams: every process reads its part, memory stays, and a killed run goes on with the very next sequence."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from alignment.config import load_recipe
from alignment.config.schema import PretrainRecipe
from alignment.data.streamed import Lines
from alignment.errors import DataError, RecipeError
from tests.train.pretraining.conftest import TEXTS, losses, manifest, run, run_killed


def lines_of(write, rows, process, processes, **keys):
    recipe = load_recipe(PretrainRecipe, ["--config", str(write(rows, streaming=True, **keys))])
    return Lines(recipe.datasets, "stop", process=process, processes=processes)


def test_processes_read_disjoint_parts_that_are_all_rows(write):
    rows = [f"text number {number}" for number in range(300)]
    read = []
    for process in range(3):
        lines, mine = lines_of(write, rows, process, 3), []
        while not lines.place.passes:
            mine += [row.completion for row in lines.chunk()]
        read.append(mine)
    assert [len(mine) for mine in read] == [100, 100, 100]
    assert sorted(row for mine in read for row in mine) == sorted(rows)


@pytest.mark.parametrize("objective", ["causal"])
def test_a_killed_run_ends_at_the_same_weights(write, tmp_path, monkeypatch, objective):
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text(json.dumps({"text": TEXTS[0]}) + "\n")
    keys = {"streaming": True, "shuffle_buffer_size": 7, "eval_datasets": [{"path": str(held_out)}]}
    keys |= {"peft_method": "lora", "lora_dropout": 0.2, "gradient_accumulation_steps": 2}
    file = write(max_steps=6, save_strategy="steps", save_steps=2, objective=objective, **keys)
    run(file, output_dir=tmp_path / "whole")
    run_killed(file, monkeypatch, 3, output_dir=tmp_path / "killed")
    run(file, output_dir=tmp_path / "killed")
    whole, killed = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[key], killed[key]) for key in whole)
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")
    assert len({*losses(tmp_path / "whole")}) == 6
    assert manifest(tmp_path / "whole")["results"]["eval_perplexity"] > 1


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"max_steps": -1}, "max_steps: must be given with streaming: a stream has no end"),
        ({"test_split_size": 0.1}, "test_split_size: cannot be used with streaming; give eval_datasets"),
        ({"dataloader_num_workers": 2}, "dataloader_num_workers: cannot be used with streaming"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(write, keys, told):
    with pytest.raises(RecipeError, match=told):
        run(write(streaming=True, **keys))


def test_other_files_and_binary_content_are_refused(write, tmp_path):
    (tmp_path / "text.txt").write_text("a text")
    with pytest.raises(DataError, match="streaming reads files of JSON lines"):
        run(write(streaming=True, datasets=[{"path": str(tmp_path / "text.txt")}]))
    (tmp_path / "binary.jsonl").write_bytes(bytes(range(256)) * 8)
    with pytest.raises(DataError, match=r"binary.jsonl:1: ") as error:
        run(write(streaming=True, datasets=[{"path": str(tmp_path / "binary.jsonl")}], overwrite=True))
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


PEAK = """
import re, sys
from pathlib import Path
from alignment.config.schema import DatasetEntry
from alignment.data.streamed import Lines
lines = Lines([DatasetEntry(path=sys.argv[1])], "stop", process=0, processes=1)
count = 0
while not lines.place.passes:
    count += len(lines.chunk())
print(count, re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
    peaks = []
    for rows in (1_000, 20_000):  # 1 MB and 20 MB
        file = tmp_path / f"{rows}.jsonl"
        file.write_text((json.dumps({"text": "word " * 200}) + "\n") * rows)
        done = subprocess.run([sys.executable, "-c", PEAK, str(file)], capture_output=True, text=True, check=True)
        count, peak = map(int, done.stdout.split())
        assert count == rows
        peaks.append(peak)  # KiB
    assert peaks[1] - peaks[0] < 8_000


@pytest.mark.parametrize("key", [{"split": "train[:3]"}, {"columns": ["text"]}, {"ignore_columns": ["x"]}], ids=str)
def test_a_stream_refuses_keys_of_a_data_set_that_it_does_not_read(write, key):
    ((name, _),) = key.items()
    with pytest.raises(RecipeError, match=rf"datasets\[0\].{name}: is not read with streaming"):
        run(write(streaming=True, max_steps=2, datasets=[{"path": "t.jsonl", **key}]))
