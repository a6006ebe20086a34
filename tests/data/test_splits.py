"""Held-out prompts: by prompt, the same in every process, order and stage."""

import json
import random
import subprocess
import sys

import pytest

from alignment.config.schema import DataKeys
from alignment.data import load_demonstrations, load_split, split_by_prompt
from alignment.data.rows import Demonstration, Pair, Ranking
from alignment.data.splits import prompt_key
from alignment.errors import DataError
from alignment.meter import say_once

PROMPTS = [f"Question {number}?" for number in range(1000)]


def test_no_prompt_is_in_both_splits():
    rows = [Demonstration(PROMPTS[i % 100], f"answer {i}") for i in range(500)]
    train, test = split_by_prompt(rows, 0.2, seed=0)
    assert sorted(row.completion for row in train + test) == sorted(row.completion for row in rows)
    assert not {row.prompt for row in train} & {row.prompt for row in test}
    assert all(sum(row.prompt == prompt for row in test) == 5 for prompt in {row.prompt for row in test})
    assert [rows.index(row) for row in test] == sorted(rows.index(row) for row in test)


def test_share_is_near_and_the_seed_counts():
    _, test = split_by_prompt(PROMPTS, 0.2, seed=0)
    # binomial with n 1000, p 0.2: standard deviation sqrt(1000 * 0.2 * 0.8) = 12.6; five of them either way
    assert 137 <= len(test) <= 263
    assert split_by_prompt(PROMPTS, 0.2, seed=1)[1] != test


def test_side_depends_on_the_prompt_alone():
    held_out = set(split_by_prompt(PROMPTS, 0.2, seed=0)[1])
    shuffled = random.Random(0).sample(PROMPTS, 300)
    assert set(split_by_prompt(shuffled, 0.2, seed=0)[1]) == held_out & set(shuffled)
    assert set(split_by_prompt(PROMPTS, 0.3, seed=0)[1]) > held_out


def test_another_process_makes_the_same_split():
    code = (
        "from alignment.data import split_by_prompt\n"
        "print(split_by_prompt([f'Question {n}?' for n in range(50)], 0.2, 7)[1])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(split_by_prompt(PROMPTS[:50], 0.2, 7)[1])


def test_stages_that_read_the_prompt_differently_hold_out_the_same():
    messages = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    rankings = [Ranking(prompt, ["a", "b"], [Pair(0, 1, 1.0)]) for prompt in messages]
    held_out = split_by_prompt(PROMPTS, 0.2, seed=0)[1]
    assert [prompt[0]["content"] for prompt in split_by_prompt(messages, 0.2, seed=0)[1]] == held_out
    assert [row.prompt[0]["content"] for row in split_by_prompt(rankings, 0.2, seed=0)[1]] == held_out


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Why?", " why?\n", True),
        ("Why  so?", "Why so?", True),
        ("Why?", "Why not?", False),
        ("Why?", [{"role": "user", "content": "WHY?"}], True),
        ("Why?", [{"role": "system", "content": "x"}, {"role": "user", "content": "Why?"}], False),
        (Demonstration("", "Once."), Demonstration("", "Twice."), False),  # plain text counts as its own prompt
        (Demonstration("Why?", "a"), Demonstration("Why?", "b"), True),
    ],
)
def test_prompts_are_the_same_but_for_case_and_space(one, other, same):
    assert (prompt_key(one) == prompt_key(other)) is same


@pytest.mark.parametrize("size", [0.001, 0.999])
def test_neither_side_is_ever_empty(size):
    train, test = split_by_prompt(PROMPTS[:2], size, seed=0)
    assert (len(train), len(test)) == (1, 1)


def test_a_share_that_is_far_off_is_reported(capsys):
    say_once.cache_clear()
    rows = [f"prompt {i}" for i in range(30)]
    sizes = {seed: len(split_by_prompt(rows, 0.1, seed)[1]) for seed in range(30)}
    told = capsys.readouterr().err
    assert {1, 3} <= set(sizes.values())
    assert "test_split_size 0.1 holds out 1 of 30 prompts (3%). A hash of each prompt decides" in told
    assert "holds out 3 of" not in told
    split_by_prompt(rows[:6], 0.1, 0)
    assert capsys.readouterr().err == ""  # 1 of 6 is as near as it can be


def test_one_prompt_cannot_be_split():
    rows = [Demonstration("Why?", "a"), Demonstration("why?", "b")]
    with pytest.raises(DataError, match=r"test_split_size 0.1 cannot be held out: the 2 rows have 1 distinct prompts"):
        split_by_prompt(rows, 0.1, seed=0)


def test_a_recipe_holds_out_a_share_or_reads_other_data(tmp_path):
    for name, count in (("a", 40), ("b", 6)):
        rows = [json.dumps({"prompt": f"{name} {number}?", "completion": "Yes."}) for number in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join([*rows, "{}"]))
    path = {name: {"path": str(tmp_path / f"{name}.jsonl"), "format": "prompt_completion"} for name in "ab"}

    def split(**keys):
        return load_split(load_demonstrations, DataKeys(datasets=[path["a"]], on_bad_row="skip", **keys), seed=0)

    whole = split()
    assert (len(whole.train), whole.held_out, len(whole.skipped)) == (40, [], 1)
    share = split(test_split_size=0.3)
    assert (share.train, share.held_out) == split_by_prompt(whole.train, 0.3, seed=0)
    assert split(test_split_size=0.3, max_eval_samples=2).held_out == share.held_out[:2]
    other = split(eval_datasets=[path["b"]], max_eval_samples=4, max_samples=30)
    assert (len(other.train), len(other.held_out), len(other.skipped)) == (30, 4, 2)
    assert {row.prompt[0] for row in other.held_out} == {"b"}
    assert sorted(other.files) == [entry["path"] for entry in path.values()]
