"""Shingles, MinHash signatures, candidates and clusters, against datasketch and sets of Python."""

import itertools
import random

import numpy as np
import pytest
from datasketch import MinHash

from alignment.data.prepare.exact import exact_duplicates
from alignment.data.prepare.minhash import PERMUTATIONS, RECALL, Bands, Sketch, bands_for
from alignment.data.prepare.near import WINDOW, matches, near_duplicates, similarities
from alignment.data.prepare.shingles import normalised, shingled

CHANCE = random.Random(0)
VOCABULARY = ["".join(CHANCE.choices("abcdefghijklmnop", k=CHANCE.randint(2, 8))) for _ in range(300)]


def sketch(threshold=0.7, size=5, unit="characters", seed=1):
    return Sketch(size, unit, bands_for(threshold), seed)


def words(count):
    return " ".join(CHANCE.choices(VOCABULARY, k=count))


def shingle_set(text, size):
    text = normalised(text)
    return {text[place : place + size] for place in range(max(len(text) - size + 1, 1))} if text else set()


def jaccard(one, other, size=5):
    one, other = shingle_set(one, size), shingle_set(other, size)
    return len(one & other) / len(one | other) if one | other else 1.0


def distinct(shingles, row=0):
    return len(set(shingles.hashes[shingles.starts[row] : shingles.starts[row + 1]].tolist()))


@pytest.mark.parametrize(
    ("text", "unit", "size", "count"),
    [
        ("abcdef", "characters", 5, 2),
        ("abc", "characters", 5, 1),
        ("", "characters", 5, 0),
        ("one two three", "words", 2, 2),
        ("one", "words", 2, 1),
        ("...", "words", 1, 0),
        ("don't stop", "words", 1, 2),  # punctuation is left out, as in lm-eval's decontamination
        ("我爱北京", "words", 1, 4),
        ("我爱 AI 北京", "words", 1, 5),
        ("aaaaaaaa", "characters", 5, 1),
    ],
)
def test_shingles_of_a_text(text, unit, size, count):
    assert distinct(shingled([text], size=size, unit=unit)) == count


def test_words_are_compared_without_punctuation_and_case():
    one, other = (
        shingled([normalised(text)], size=3, unit="words") for text in ("Hello, (big) World!", "hello big world")
    )
    assert one.hashes.tolist() == other.hashes.tolist()


def test_a_short_text_is_no_shingle_of_a_longer_one():
    found = shingled(["abc", "abcde", "abc d"], size=5, unit="characters")
    assert len({*found.hashes.tolist()}) == 3
    assert distinct(shingled(["one two"], size=3, unit="words", whole=False)) == 0


def test_neighbours_in_a_batch_do_not_share_shingles():
    texts = [words(CHANCE.randint(0, 9)) for _ in range(50)]
    for unit in ("characters", "words"):
        together = shingled(texts, size=4, unit=unit)
        for place, text in enumerate(texts):
            alone = shingled([text], size=4, unit=unit)
            mine = together.hashes[together.starts[place] : together.starts[place + 1]]
            assert mine.tolist() == alone.hashes.tolist()


def test_signatures_are_those_of_datasketch():
    texts = [words(count) for count in (1, 5, 40)] + [""]
    made = sketch(0.8, seed=7)
    shingles = made.shingles([(text,) for text in texts])
    signatures = made.signatures(shingles)
    for place, signature in enumerate(signatures):
        hashes = (shingles.hashes[shingles.starts[place] : shingles.starts[place + 1]] >> np.uint64(32)).tolist()
        theirs = MinHash(num_perm=PERMUTATIONS, seed=7, hashfunc=int, scheme="affine32")
        theirs.update_batch(hashes)
        assert signature.tolist() == theirs.hashvalues[: len(signature)].tolist()


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.8, 0.95, 1.0])
def test_bands_are_the_most_selective_that_find_pairs_at_the_threshold(threshold):
    bands = bands_for(threshold)
    # 1 - (1 - s^r)^b at s = threshold
    assert 1 - (1 - threshold**bands.rows) ** bands.count >= RECALL
    assert bands.count * bands.rows <= PERMUTATIONS
    stricter = Bands(PERMUTATIONS // (bands.rows + 1), bands.rows + 1)
    assert threshold == 1.0 or stricter.probability(threshold) < RECALL


def test_bands_at_the_default_threshold():
    # 0.7^6 = 0.117649; 42 bands: 1 - 0.882351^42 = 0.9948
    assert bands_for(0.7) == Bands(42, 6)
    assert bands_for(0.7).probability(0.7) == pytest.approx(0.9948, abs=1e-4)


def test_similarity_is_the_jaccard_similarity_of_sets():
    texts = [*(words(CHANCE.randint(0, 12)) for _ in range(30)), "", "ab", "abcde", "ABCDE"]
    pairs = [*itertools.combinations(range(len(texts)), 2)]
    found = similarities([(text,) for text in texts], np.array(pairs), sketch())
    assert found.tolist() == pytest.approx([jaccard(texts[one], texts[other]) for one, other in pairs])


def test_all_pairs_above_the_threshold_are_found_and_no_other():
    texts = []
    for _ in range(120):
        text = words(25)
        texts += [text, f"{text[:-8]}{words(2)}", words(25)]
    rows = [(text,) for text in texts]
    found = near_duplicates(rows, sketch=sketch(0.7), threshold=0.7)
    similar = {
        (one, other)
        for one, other in itertools.combinations(range(len(texts)), 2)
        if jaccard(texts[one], texts[other]) >= 0.7
    }
    assert len(similar) > 100
    joined = {(int(kept), place) for place, kept in enumerate(found.kept.tolist()) if kept != place}
    assert len(similar - joined) <= 2  # at most 1 % are missed in expectation
    assert not joined - similar


def test_prompts_and_answers_must_both_be_similar():
    question = "Does the following sentence express a positive sentiment? " + words(30)
    rows = [(question, "yes"), (question, "no"), (question + "!", "yes"), ("", "yes"), ("", "yes")]
    found = near_duplicates(rows, sketch=sketch(), threshold=0.7)
    assert found.kept.tolist() == [0, 1, 0, 3, 3]


def test_rows_without_text_are_no_duplicates():
    rows = [("", ""), ("", ""), (" \n", ""), ("a", ""), ("a", "")]
    assert near_duplicates(rows, sketch=sketch(), threshold=0.7).kept.tolist() == [0, 1, 2, 3, 3]
    assert exact_duplicates(rows).kept.tolist() == [0, 1, 2, 3, 3]
    assert near_duplicates([], sketch=sketch(), threshold=0.7).kept.tolist() == []
    assert exact_duplicates([]).kept.tolist() == []


def test_the_longest_row_of_a_cluster_is_kept():
    text = words(40)
    rows = [(text,), (f"{text} and more",), (text,)]
    assert near_duplicates(rows, sketch=sketch(), threshold=0.7, keep="longest").kept.tolist() == [1, 1, 1]
    assert near_duplicates(rows, sketch=sketch(), threshold=0.7).kept.tolist() == [0, 0, 0]


def test_many_copies_are_one_cluster():
    rows = [(text,) for text in [words(20)] * (3 * WINDOW) + [words(20)]]
    assert near_duplicates(rows, sketch=sketch(), threshold=0.9).dropped.tolist() == list(range(1, 3 * WINDOW))


def test_words_as_units():
    text = words(40)
    made = sketch(0.7, 2, "words")
    rows = [(text,), (text.upper().replace(" ", ", "),), (words(40),)]
    assert near_duplicates(rows, sketch=made, threshold=1.0).kept.tolist() == [0, 0, 2]


def test_exact_duplicates():
    rows = [("a", "b"), ("ab", ""), ("A", "b"), ("a", "b"), ("a ", "b"), ("a", "b")]
    assert exact_duplicates(rows).kept.tolist() == [0, 1, 2, 0, 4, 0]
    assert exact_duplicates(rows, normalise=True).kept.tolist() == [0, 1, 0, 0, 0, 0]
    assert exact_duplicates(rows, normalise=True, keep="longest").kept.tolist() == [4, 1, 4, 4, 4, 4]


def test_matches_with_other_rows():
    evaluated = [words(25) for _ in range(20)]
    rows = [(words(25),), (evaluated[3] + "?",), (words(25),), (evaluated[11],), ("",)]
    found = matches(rows, [(text,) for text in evaluated], sketch=sketch(), threshold=0.7)
    assert {row: other for row, (other, _) in found.items()} == {1: 3, 3: 11}
    assert found[3][1] == 1.0
    assert matches(rows, [], sketch=sketch(), threshold=0.7) == {}
