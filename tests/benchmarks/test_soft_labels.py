"""The judge of known noise and the truth that models are held against."""

import math
import random

import numpy
import pytest

from alignment.data.rows import Pair, Ranking
from benchmarks.soft_labels import LEARNED, columns, errors, judge, table, truth

PROMPT = [{"role": "user", "content": "Which skill is the otter known for?"}]
GOOD, EMPTY = "Of course! The otter is known for floating on its back.", ""
RANKING = Ranking(PROMPT, [GOOD, EMPTY, EMPTY], [Pair(0, 1, 0.5), Pair(1, 2, 0.5)])


def test_the_truth_is_a_logistic_in_quality():
    # gold's quality: everything asked and right 2, a courteous word 1; an empty answer 0
    assert truth(RANKING, 0, 1) == pytest.approx(1 / (1 + math.exp(-1.5 * 3)))
    assert truth(RANKING, 1, 0) == pytest.approx(1 - truth(RANKING, 0, 1))


def test_without_noise_the_judge_is_right_and_equal_texts_are_not_a_pair():
    said = {name: judge(RANKING, 0.0, 1, learned).pairs for name, learned in LEARNED.items()}
    assert [(pair.first, pair.second) for pair in said["probabilities"]] == [(0, 1)]
    assert said["probabilities"][0].probability == pytest.approx(truth(RANKING, 0, 1))
    assert said["verdicts"][0].probability == 1.0
    assert said["one draw"][0].probability in (0.0, 1.0)


def test_all_that_is_learned_comes_of_the_same_noise():
    for seed in range(20):
        soft, hard = (
            judge(RANKING, 5.0, seed, LEARNED[name]).pairs[0].probability for name in ("probabilities", "verdicts")
        )
        assert hard == float(soft > 0.5)
    logits = []
    for seed in range(2000):
        p = judge(RANKING, 1.0, seed, LEARNED["probabilities"]).pairs[0].probability
        logits.append(math.log(p / (1 - p)) - 4.5)
    assert numpy.mean(logits) == pytest.approx(0, abs=0.07)
    assert numpy.std(logits) == pytest.approx(1, abs=0.05)


def test_errors_by_hand():
    found = errors(numpy.array([0.9, 0.4]), numpy.array([0.7, 0.7]))
    # confidence 0.9 right 0.7 of the time, confidence 0.6 right 0.3 of the time: (0.2 + 0.3) / 2
    assert found["ece"] == pytest.approx(0.25)
    # (0.7 · 0.01 + 0.3 · 0.81 + 0.7 · 0.36 + 0.3 · 0.16) / 2 = (0.25 + 0.30) / 2
    assert found["brier"] == pytest.approx(0.275)
    logs = 0.7 * math.log(0.9) + 0.3 * math.log(0.1) + 0.7 * math.log(0.4) + 0.3 * math.log(0.6)
    assert found["nll"] == pytest.approx(-logs / 2)
    assert found["accuracy"] == 0.5


def test_scores_that_are_the_truth_have_no_calibration_error():
    dice = random.Random(0)
    scores = [[4.5, 0.0, dice.random()]]
    p, expected = columns([RANKING], scores)
    assert p == pytest.approx(expected)
    floor = errors(p, expected)
    assert floor["ece"] == pytest.approx(0)
    assert "| probabilities | 0.000 [0.000, 0.000] |" in table({"probabilities": [floor]}, floor)
