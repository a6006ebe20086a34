"""The novelty filter decides as the package rouge-score does."""

import itertools
import json
import random
from pathlib import Path

import pytest
from rouge_score import rouge_scorer

from alignment.synthesize.rouge import RougeIndex, words

LIMIT = 0.7


def pairs(shared: Path) -> list[tuple[str, str]]:
    """500 pairs: drawn at random, or changed in some words, so that many lie around the limit."""
    names = ("seed_tasks.jsonl", "user_oriented_instructions.jsonl")
    files = [(shared / "data/self-instruct" / name).read_text(encoding="utf-8") for name in names]
    texts = [json.loads(line)["instruction"] for file in files for line in file.splitlines()]
    rng = random.Random(0)
    found = [tuple(rng.sample(texts, 2)) for _ in range(100)]
    while len(found) < 500:
        text = rng.choice(texts)
        others = ("Other,", "WORDS", "123", "—", "é")
        changed = [word if rng.random() < 0.7 else rng.choice(others) for word in text.split()]
        kept = rng.randint(1, len(changed)) if rng.random() < 0.3 else len(changed)
        found.append((text, " ".join(changed[:kept])))
    return found


def test_decisions_equal_those_of_rouge_score_on_500_pairs(shared):
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    decided = []
    for new, old in pairs(shared):
        score = scorer.score(new, old)["rougeL"].fmeasure
        index = RougeIndex()
        index.add(old)
        assert index.nearest(new)[0] == score
        assert index.reaches(new, LIMIT) == (score >= LIMIT), (new, old)
        decided.append(score >= LIMIT)
    assert len(decided) == 500
    assert min(decided.count(True), decided.count(False)) > 100


def test_scores_of_exactly_the_limit_round_as_in_rouge_score():
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    for one, other in itertools.product(range(1, 27), repeat=2):
        for common in range(1, min(one, other) + 1):
            if 20 * common != 7 * (one + other):  # 2 * common / (one + other) is 0.7
                continue
            shared = [f"w{place}" for place in range(common)]
            new = " ".join([*shared, *(f"a{place}" for place in range(one - common))])
            old = " ".join([*shared, *(f"b{place}" for place in range(other - common))])
            index = RougeIndex()
            index.add(old)
            assert index.reaches(new, LIMIT) == (scorer.score(new, old)["rougeL"].fmeasure >= LIMIT)


def test_the_nearest_of_several_is_found():
    index = RougeIndex()
    for text in ("Sort the numbers.", "Name three rivers in France.", "Name four rivers in Spain."):
        index.add(text)
    # three of five words in common with the second, in order: P = R = 3/5; with the third two of five
    assert index.nearest("Name three lakes in Chile.") == (pytest.approx(0.6), 1)
    assert index.nearest("Name three lakes in Chile.", without=1) == (pytest.approx(0.4), 2)
    assert index.nearest("—") == (0.0, None)
    assert RougeIndex().nearest("words") == (0.0, None)


def test_texts_without_latin_letters_are_compared_only_as_any_script():
    latin, every = RougeIndex(), RougeIndex(any_script=True)
    for index in (latin, every):
        index.add("请把下面的句子翻译成英语")
    assert latin.nearest("请把下面的句子翻译成法语")[0] == 0.0
    assert every.nearest("请把下面的句子翻译成法语")[0] == pytest.approx(11 / 12)  # one of twelve characters differs
    assert words("Straße, naïve: 日本 Tōkyō_3", any_script=True) == ["straße", "naïve", "日", "本", "tōkyō", "3"]
