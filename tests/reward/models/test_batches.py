"""Rankings encoded by several processes are those of one process, in the same order."""

import pytest

from alignment.data.rows import Pair, Ranking
from alignment.data.template import Template
from alignment.errors import DataError
from alignment.train import token_rows
from reward.models.batches import encode_rankings
from tests.models import make_tokenizer


def test_processes_give_the_same_rankings_as_one(monkeypatch):
    monkeypatch.setattr(token_rows, "PART", 3)
    template = Template(make_tokenizer())
    rows = [
        Ranking([{"role": "user", "content": f"Question {n}?"}], ["So.", "No."], [Pair(0, 1, 0.7)], source=f"d:{n}")
        for n in range(8)
    ]
    rows[4] = Ranking(rows[4].prompt, ["A<|im_end|>b", "No."], rows[4].pairs, source="d:4")
    rows[5] = Ranking(rows[5].prompt, ["So.", "No."], [Pair(0, 1, None, "refusal")], source="d:5")
    apart = encode_rankings(rows, template, max_length=40, on_bad_row="skip", num_proc=2)
    assert apart == encode_rankings(rows, template, max_length=40, on_bad_row="skip")
    assert [row.place for row in apart.rows] == [0, 1, 2, 3, 6, 7]
    assert (len(apart.skipped), apart.without_pairs) == (1, 2)
    with pytest.raises(DataError, match="d:4: answer 1 of 2: an answer holds the stop token"):
        encode_rankings(rows, template, max_length=40, num_proc=2)
