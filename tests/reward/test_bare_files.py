"""Commands that take data files without a recipe read them with the keys of a recipe's entry."""

import json
import subprocess
import sys

import pytest

from alignment.calls.store import CallStore
from alignment.calls.store_rows import Sampled
from alignment.cli.base import entry_keys
from alignment.data.columns import refuse_unused
from alignment.errors import DataError, RecipeError
from reward.audit.items import Reading, gold_rankings
from reward.bench.reading import read_bench
from reward.people.items import load_items, place_of
from reward.people.mix import mix

ROW = {"question": "Why?", "good": "So.", "rejected": "No.", "notes": "A note of two\nlines."}
KEYS = ("prompt=question, chosen=good", "notes", "preference")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    return path


def items(file, entry):
    (item,) = load_items(place_of(file, None), ask="rank", entry=entry)
    return item.prompt, item.responses


def benched(file, entry):
    (row,) = read_bench([str(file)], entry=entry or {}).rows
    return row.ranking.prompt, row.ranking.responses


def gold(file, entry):
    (row,) = gold_rankings(str(file), Reading(entry or {}))
    return row.prompt, row.responses


def mixed(file, entry):
    mix([str(file)], file.with_name("mixed.jsonl"), bootstrap=0, entry=entry, tell=print)
    row = json.loads(file.with_name("mixed.jsonl").read_text())
    return row["prompt"], row["responses"]


@pytest.mark.parametrize("read", [items, benched, gold, mixed])
def test_columns_are_renamed_and_left_out(file, read):
    assert read(file, entry_keys(*KEYS)) == ("Why?", ["So.", "No."])
    with pytest.raises(DataError, match="no layout has these keys: question, good, rejected, notes"):
        read(file, None)
    with pytest.raises(DataError, match="does not read 'notes'"):
        read(file, entry_keys(KEYS[0], None, None))


@pytest.mark.parametrize(
    ("columns", "ignored", "fault"),
    [
        ("prompt", None, "--columns prompt: write KEY=COLUMN"),
        ("prompt=", None, "write KEY=COLUMN"),
        ("prompt=a,prompt=b", None, "one key is named twice"),
        (None, "a,,b", "--ignore_columns a,,b: write KEY, or KEY,KEY"),
    ],
)
def test_options_that_are_not_written_so_are_refused(columns, ignored, fault):
    with pytest.raises(RecipeError, match=fault):
        entry_keys(columns, ignored, None)


def test_keys_are_refused_where_no_file_of_data_is_read(tmp_path):
    entry = entry_keys("prompt=question", "notes", None)
    with pytest.raises(DataError, match="--columns, --ignore_columns: nothing would read them: no file of data"):
        refuse_unused(entry, "no file of data")
    refuse_unused(entry_keys(None, None, None), "no file of data")
    with CallStore(tmp_path / "calls.sqlite") as store:
        store.add_samples([Sampled(0, "Why?", ["So.", "No."], [True, True])])
    with pytest.raises(DataError, match=r"nothing would read them: .* is a label run that was interrupted"):
        load_items(place_of(tmp_path, None), ask="rank", entry=entry)
    assert load_items(place_of(tmp_path, None), ask="rank")
    order = {"winner": "1", "completion": "Output (a)"}
    row = {"input": "Why?", "output_1": "So.", "output_2": "No.", "label": 1, "results": [{"swap = False": order}]}
    row["results"][0]["swap = True"] = order
    (tmp_path / "result.json").write_text(json.dumps([row]))
    with pytest.raises(DataError, match="nothing would read them: all of LABELS are recorded verdicts"):
        mix([str(tmp_path / "result.json")], tmp_path / "mixed.jsonl", bootstrap=0, entry=entry, tell=print)


def test_keys_are_refused_where_rankings_are_only_exported(file, capsys):
    for option in ("--columns=prompt=q", "--ignore_columns=q", "--format=hh"):
        done = subprocess.run(
            [sys.executable, "-m", "alignment.cli", "annotate", str(file), "--export", option],
            capture_output=True,
            text=True,
        )
        name = option.split("=")[0]
        assert done.returncode == 1
        assert done.stderr.startswith(f"{name}: nothing would read it: --export writes the rankings that people gave")
