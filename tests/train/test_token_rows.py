"""Tokenised rows in arrays, made by one process or by several."""

import pytest
from datasets import Dataset, Features, List, Value

from alignment.data.rows import Demonstration, Pair, Ranking
from alignment.data.template import Template
from alignment.errors import DataError
from alignment.train import token_rows
from alignment.train.preference_pairs import tokenise_pairs
from alignment.train.sft import tokenise_demonstrations
from alignment.train.token_rows import TokenRows
from tests.models import make_tokenizer

ROWS = [{"input_ids": [1, 2, 70_000], "p": 0.1}, {"input_ids": [], "p": 1.0}, {"input_ids": [5], "p": 0.5}]


def test_rows_are_given_back_as_they_were_added(monkeypatch):
    monkeypatch.setattr(token_rows, "PART", 2)
    rows = TokenRows(ROWS[:1])
    rows.extend(TokenRows(ROWS[1:]))
    assert rows == ROWS
    assert (rows[-1], rows[1:], len(rows)) == (ROWS[2], ROWS[1:], 3)
    features = Features({"input_ids": List(Value("int64")), "p": Value("float32")})
    wanted = Dataset.from_list(ROWS, features=features)
    assert rows.dataset().features == wanted.features
    assert rows.dataset().to_list() == wanted.to_list()


def questions(count):
    return [[{"role": "user", "content": f"Question {number}?"}] for number in range(count)]


def test_processes_give_the_same_rows_as_one(monkeypatch):
    monkeypatch.setattr(token_rows, "PART", 3)
    template = Template(make_tokenizer())
    shown = [Demonstration(prompt, "So." * 9, source=f"d:{place}") for place, prompt in enumerate(questions(8))]
    shown[4] = Demonstration(shown[4].prompt, "A<|im_end|>b", source="d:4")
    options = {"limit": 40, "on_bad_row": "skip"}
    assert tokenise_demonstrations(shown, template, num_proc=2, **options) == tokenise_demonstrations(
        shown, template, **options
    )
    with pytest.raises(DataError, match="d:4: an answer holds the stop token"):
        tokenise_demonstrations(shown, template, limit=40, num_proc=2)
    compared = [Ranking(prompt, ["So.", "No."], [Pair(0, 1, 0.75)]) for prompt in questions(7)]
    assert tokenise_pairs(compared, template, limit=40, num_proc=2) == tokenise_pairs(compared, template, limit=40)
