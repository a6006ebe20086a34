"""The arithmetic recipe: its files, its demonstrations, and the table of its result."""

import json
import random
import re
from pathlib import Path

import pytest

from alignment.config.pipelines import check_file
from recipes.arithmetic.accuracy import line
from recipes.arithmetic.check import prefer, right
from recipes.arithmetic.generate import Sizes, answered, worked, write_data

RECIPES = Path(__file__).parents[2] / "recipes" / "arithmetic"
SIZES = Sizes(demonstrations=60, train_prompts=30, heldout_prompts=20)


def rows_of(folder: Path, name: str) -> list[dict]:
    return [json.loads(each) for each in (folder / f"{name}.jsonl").read_text().splitlines()]


def numbers(row: dict) -> tuple[int, ...]:
    return tuple(sorted(map(int, re.findall(r"\d+", row["prompt"][0]["content"]))))


def test_the_same_seed_writes_the_same_files_and_no_sum_is_in_two(tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_data(tmp_path / folder, SIZES, seed)
    names = ["demonstrations", "prompts_train", "prompts_heldout"]
    read = {name: rows_of(tmp_path / "a", name) for name in names}
    assert read == {name: rows_of(tmp_path / "b", name) for name in names}
    assert read != {name: rows_of(tmp_path / "c", name) for name in names}
    assert [len(read[name]) for name in names] == [60, 30, 20]
    sums = [numbers(row) for name in names for row in read[name]]
    assert len(set(sums)) == len(sums) == 110


def test_the_answer_column_is_the_sum(tmp_path):
    write_data(tmp_path, SIZES, 0)
    for row in rows_of(tmp_path, "prompts_heldout"):
        assert int(row["answer"]) == sum(numbers(row))
        assert right(row["prompt"], f"#### {row['answer']}")


@pytest.mark.parametrize(
    ("a", "b", "careful", "text"),
    [
        (47, 85, True, "7+5=12 4+8+1=13 #### 132"),
        (47, 85, False, "7+5=12 4+8=12 #### 122"),
        (99, 99, True, "9+9=18 9+9+1=19 #### 198"),
        (90, 30, False, "0+0=0 9+3=12 #### 120"),
    ],
)
def test_a_demonstration_adds_from_the_right(a, b, careful, text):
    assert worked(a, b, careful=careful) == text


def test_every_careful_demonstration_is_right_and_some_are_careful():
    rng = random.Random(0)
    pairs = [(rng.randrange(10, 100), rng.randrange(10, 100)) for _ in range(200)]
    assert all(worked(a, b, careful=True).endswith(f"#### {a + b}") for a, b in pairs)
    with_carry = [(a, b) for a, b in pairs if a % 10 + b % 10 > 9]
    careful = [answered(a, b, rng)["content"].endswith(f" {a + b}") for a, b in with_carry]
    assert 0.2 < sum(careful) / len(careful) < 0.6


def test_only_the_final_answer_counts():
    prompt = [{"role": "user", "content": "12+30="}]
    copied = ["#### 12+30", "#### 12 30", "#### 42 43", "#### 42.0", "42"]
    assert not any(right(prompt, answer) for answer in copied)
    answers = ["#### 42", "2+0=2 1+3=4 #### 42", "#### 43", "42 #### 2", ""]
    assert [right(prompt, answer) for answer in answers] == [True, True, False, False, False]
    assert [prefer(prompt, answers[0], other) for other in answers[1:3]] == [0.5, 1.0]
    assert prefer(prompt, answers[2], answers[0]) == 0.0


def test_the_result_is_two_accuracies_and_their_paired_difference():
    rows = [
        {
            "prompt": [{"role": "user", "content": f"1{i}+10="}],
            "answers": {"sft": f"#### {20 + i if i < 4 else 0}", "grpo": f"#### {20 + i if i < 8 else 0}"},
        }
        for i in range(10)
    ]
    name, before, after, gain = line("runs/a", rows).strip("| ").split(" | ")
    assert (name, before[:6], after[:6], gain[:6]) == ("runs/a", "40.0 %", "80.0 %", "40.0 %")
    low, high = map(float, re.findall(r"[\d.]+", gain)[1:])
    assert 0 < low < 40 < high < 80


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_are_sound(recipe):
    check_file(str(recipe))
