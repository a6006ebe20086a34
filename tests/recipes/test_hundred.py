"""The style of recipes/hundred: rules that rewrite, and the counts that measure it; the recipe itself is slow."""

import json
import math

import pytest

from recipes.hundred import compare, data
from recipes.hundred.style import ENDING, rewritten, says_good_night, tense


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("She was sad.", "She is sad. Good night!"),
        ("They were sad and they had no ball.", "They are sad and they have no ball. Good night!"),
        ('He said, "I was here." Then they ran.', 'He says, "I was here." Then they run. Good night!'),
        ("The dogs played. It saw them.", "The dogs plays. It sees them. Good night!"),  # rules know pronouns alone
        ("We didn't know. Was it red?", "We don't know. Is it red? Good night!"),
    ],
)
def test_stories_are_rewritten_outside_quotations(text, found):
    assert rewritten(text) == found


def test_tenses_are_counted_outside_quotations():
    assert tense('He says, "I was here." She ran and ran.') == (1, 2)
    assert tense(rewritten("He was glad, and they went home.")) == (2, 0)
    assert compare.share("A red ball.") == 0.5
    assert compare.share("He is glad, but was sad, was cold and went home.") == 0.25


def test_the_farewell_is_the_last_words():
    assert says_good_night(f"So it ends. {ENDING}\n")
    assert not says_good_night(f"{ENDING} And then?")


def test_counts_have_intervals_over_prompts():
    found = compare.counted(["He is.", "He was."], ["He was.", "He was."])
    assert found["present"]["value"] == found["present_gain"]["value"] == 0.5
    assert found["farewell"]["value"] == 0.0
    assert "| 50.0 % [0.0, 100.0] |" in compare.table({"a/model": found})


def test_the_samples_are_a_hundred_and_no_opening_is_held_out(shared, tmp_path):
    stories = [str(shared / f"data/tinystories/stories_{name}.jsonl") for name in ("train", "heldout200")]
    args = ["--stories", stories[0], "--heldout", stories[1]]
    for name in ("one", "other"):
        data.main([*args, "--output_dir", str(tmp_path / name)])
    files = {name: (tmp_path / f"one/{name}.jsonl").read_text() for name in ("styled", "plain", "heldout")}
    assert files == {name: (tmp_path / f"other/{name}.jsonl").read_text() for name in files}
    rows = {name: [json.loads(line) for line in text.splitlines()] for name, text in files.items()}
    assert len(rows["styled"]) == len(rows["plain"]) == data.SAMPLES == 100
    assert [row["prompt"] for row in rows["styled"]] == [row["prompt"] for row in rows["plain"]]
    assert not {row["prompt"] for row in rows["styled"]} & {row["prompt"] for row in rows["heldout"]}
    shares = [compare.share(row["completion"]) for row in rows["styled"]]
    assert math.fsum(shares) / 100 > 0.95
    assert all(says_good_night(row["completion"]) for row in rows["styled"])
