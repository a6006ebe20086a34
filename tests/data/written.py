"""Rows written to a file and loaded as a recipe's data set is."""

import json

import pytest

from alignment.config.schema import DatasetEntry
from alignment.errors import DataError

U = {"role": "user", "content": "Why?"}
A = {"role": "assistant", "content": "Because."}
PAIR = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}


def load(tmp_path, *rows, loader, on_bad_row="stop", **entry):
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return loader([DatasetEntry(path=str(path), **entry)], on_bad_row=on_bad_row, seed=0)


def refused(tmp_path, *rows, **more):
    """The message of the refusal, with the file's name alone."""
    with pytest.raises(DataError) as caught:
        load(tmp_path, *rows, **more)
    return str(caught.value).replace(f"{tmp_path}/", "")
