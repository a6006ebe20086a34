"""Streams: every process reads its part, memory stays, and a killed run goes on with the very next sequence."""

import gzip
import json
import subprocess
import sys

import datasets
import pytest
import torch
from safetensors.torch import load_file

from alignment.config import load_recipe
from alignment.config.schema import DatasetEntry, PretrainRecipe
from alignment.data import load_demonstrations, streamed
from alignment.data.streamed import Corpus
from alignment.errors import AlignmentError, DataError, RecipeError
from tests.train.pretraining.conftest import TEXTS, losses, manifest, run, run_killed


def lines_of(write, rows, process, processes, **keys):
    recipe = load_recipe(PretrainRecipe, ["--config", str(write(rows, streaming=True, **keys))])
    return Corpus(recipe.datasets, "stop", process=process, processes=processes)


def test_processes_read_disjoint_parts_that_are_all_rows(write):
    rows = [f"text number {number}" for number in range(300)]
    read = []
    for process in range(3):
        lines, mine = lines_of(write, rows, process, 3), []
        while not lines.passes:
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
    (tmp_path / "text.pdf").write_text("a text")
    with pytest.raises(DataError, match="streaming reads files of JSON lines, Parquet, CSV and text"):
        run(write(streaming=True, datasets=[{"path": str(tmp_path / "text.pdf")}]))
    (tmp_path / "rows.json").write_text(json.dumps([{"text": text} for text in TEXTS], indent=1))
    with pytest.raises(DataError, match="is a JSON array, which is read whole; write JSON lines"):
        run(write(streaming=True, datasets=[{"path": str(tmp_path / "rows.json")}]))
    (tmp_path / "binary.jsonl").write_bytes(bytes(range(256)) * 8)
    with pytest.raises(DataError, match=r"binary.jsonl:1: ") as error:
        run(write(streaming=True, datasets=[{"path": str(tmp_path / "binary.jsonl")}], overwrite=True))
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


PEAK = """
import re, sys
from pathlib import Path
from alignment.config.schema import DatasetEntry
from alignment.data.streamed import Corpus
lines = Corpus([DatasetEntry(path=sys.argv[1])], "stop", process=0, processes=1)
count = 0
while not lines.passes:
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


ROWS = [{"text": f"text number {number}", "meta": number} for number in range(150)]
PLAIN = [{"text": row["text"]} for row in ROWS]


def stored(kind, folder):
    """Write the rows in a layout of files; return the keys of the entry that reads them."""
    table = datasets.Dataset.from_list(ROWS)
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    if kind == "saved":
        table.save_to_disk(str(folder / "saved"))
        return {"path": str(folder / "saved"), "ignore_columns": ["meta"]}
    if kind == "parquet":
        table.to_parquet(str(folder / "rows.parquet"), batch_size=40)
        return {"path": str(folder / "rows.parquet"), "columns": ["text"]}
    if kind == "csv":
        table.to_csv(str(folder / "rows.csv"))
        return {"path": "csv", "data_files": "*.csv", "data_dir": str(folder), "ignore_columns": ["meta"]}
    if kind == "gzip":
        (folder / "rows.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
        return {"path": str(folder / "rows.jsonl.gz"), "ignore_columns": ["meta"]}
    if kind == "text":
        (folder / "rows.txt").write_text("\n<|endoftext|>\n".join(f"{row['text']}\n" for row in ROWS))
        return {"path": str(folder / "rows.txt")}
    if kind == "renamed":
        renamed = [{"story": row["text"], "text": 1} for row in ROWS]
        (folder / "rows.json").write_text("".join(json.dumps(row) + "\n" for row in renamed))
        return {"path": str(folder / "rows.json"), "columns": {"text": "story"}, "ignore_columns": ["text"]}
    if kind == "slice":
        (folder / "rows.jsonl").write_text(lines)
        return {"path": str(folder / "rows.jsonl"), "split": "train[30:140]", "ignore_columns": ["meta"]}
    (folder / "data").mkdir()
    for number, split in enumerate(["test-0", "train-0", "train-1"]):
        part = "".join(json.dumps(row) + "\n" for row in PLAIN[50 * number : 50 * number + 50])
        (folder / "data" / f"{split}.jsonl").write_text("\ufeff" + part)
    return {"path": str(folder), "name": "data", "split": kind}


KINDS = ["saved", "parquet", "csv", "gzip", "text", "renamed", "slice", "train", "test"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_reads_what_is_read_whole_and_goes_on_at_any_place(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(streamed, "CHUNK", 13)
    entry = DatasetEntry(**stored(kind, tmp_path))
    whole = [row.completion for row in load_demonstrations([entry], on_bad_row="stop", seed=0).rows]
    assert len(whole) == {"slice": 110, "train": 100, "test": 50}.get(kind, 150)
    for stops in (1, 4):
        corpus, read = Corpus([entry], "stop", process=0, processes=1), []
        for _ in range(stops):
            read += corpus.chunk()
        state = json.loads(json.dumps(corpus.state()))
        corpus = Corpus([entry], "stop", process=0, processes=1)
        corpus.restore(state)
        while not corpus.passes:
            read += corpus.chunk()
        assert [row.completion for row in read] == whole
        assert [row.completion for row in corpus.chunk()] == whole[:13]


def test_fractions_mix_data_sets_as_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(streamed, "CHUNK", 5)
    entries = []
    for name, share in (("a", 1), ("b", 3)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": f"{name}{n}"}) + "\n" for n in range(40)))
        entries.append(DatasetEntry(path=str(tmp_path / f"{name}.jsonl"), fraction=share))
    corpus = Corpus(entries, "stop", process=0, processes=1)
    read = [row.completion for _ in range(40) for row in corpus.chunk()]
    assert sum(text.startswith("a") for text in read) / len(read) == pytest.approx(0.25, abs=0.05)
    assert read.count("b0") > read.count("a0")  # a data set that ends begins again
    entries[0] = DatasetEntry(path=entries[0].path)
    with pytest.raises(DataError, match="fraction is given for some of the datasets and not for others"):
        Corpus(entries, "stop", process=0, processes=1)


def test_a_killed_run_of_mixed_files_ends_at_the_same_weights(write, tmp_path, monkeypatch):
    entries = [stored(kind, tmp_path) | {"fraction": share} for kind, share in (("parquet", 2), ("text", 1))]
    keys = {"streaming": True, "shuffle_buffer_size": 7, "datasets": entries}
    file = write(max_steps=6, save_strategy="steps", save_steps=2, **keys)
    run(file, output_dir=tmp_path / "whole")
    run_killed(file, monkeypatch, 3, output_dir=tmp_path / "killed")
    run(file, output_dir=tmp_path / "killed")
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"split": "train[:10%]"}, r"datasets\[0\].split: is a share of rows that are not counted in a stream"),
        ({"split": "train[900:]"}, r"split: train\[900:\] selects none of 24 rows"),
        ({"split": "test"}, "has no split 'test'"),
        ({"columns": ["story"]}, "columns names story, which the row lacks"),
        ({"columns": {"text": "story"}}, "columns takes text from 'story', which no row has"),
        ({"data_files": "*.jsonl"}, "is one file, so data_files has no meaning there"),
    ],
)
def test_keys_of_an_entry_that_select_nothing_are_refused(write, tmp_path, keys, told):
    with pytest.raises(AlignmentError, match=told) as error:
        run(write(streaming=True, datasets=[{"path": str(tmp_path / "text.jsonl"), **keys}]))
    assert error.value.exit_code == 2
    assert not (tmp_path / "run").exists()
