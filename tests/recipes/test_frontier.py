"""The frontier's arithmetic: best-of-n from one set of answers, curves of several seeds read at the same KLs."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest

from recipes.tinystories import best_of_n, frontier, methods


def test_best_of_n_picks_by_score_and_reports_all_else():
    found = {"score": np.array([[3.0, 1.0, 2.0, 0.0]]), "compound": np.array([[0.5, 0.1, -0.2, 0.0]])}
    points = best_of_n.curve(found)
    assert [p["n"] for p in points] == [1, 2, 4]
    # best of 2 of 4, in rising order of score: chances 0, 1/6, 2/6, 3/6 → 1/6 + 2·2/6 + 3·3/6 = 14/6
    assert [p["score"] for p in points] == pytest.approx([1.5, 14 / 6, 3.0])
    assert points[1]["compound"] == pytest.approx(0.1 / 6 - 0.2 * 2 / 6 + 0.5 * 3 / 6)
    assert points[0]["kl"] == 0.0
    assert points[2]["kl"] == pytest.approx(math.log(4) - 3 / 4)


def points(*rows):
    return [{"kl": kl, "score": score, "compound": score / 10, "watcher": 0.5} for kl, score in rows]


def test_curves_are_read_at_the_same_kls_as_far_as_all_go():
    found = frontier.common([points((0, 0.0), (2, 2.0)), points((0, 1.0), (1, 2.0), (4, 5.0))])
    assert found["kl"][-1] == 2  # the first seed goes no further
    at_one = found["kl"].index(1.0)
    assert found["score"][at_one] == pytest.approx((1.0 + 2.0) / 2)
    # two seeds half a unit off their mean: s = √(2·0.25), half-width 12.706·s/√2 = 6.353
    assert found["score_high"][at_one] - found["score"][at_one] == pytest.approx(6.353)
    assert found["watcher_low"][at_one] == pytest.approx(0.5)


def test_picture_and_table_show_every_method():
    curve = {
        "ppo": points((0, 0.0), (3, 2.0)),
        "grpo": points((0, 0.0), (3, 1.5)),
        "rloo": points((0, 0.0), (3, 2.5)),
        "dpo": points((0, 0.0), (3, 1.0)),
        "best-of-n": points((0, 0.0), (1.5, 1.0)),
    }
    found = {method: frontier.common([curve[method]]) for method in frontier.METHODS}
    root = ElementTree.fromstring(frontier.drawn([curve], found))
    words = {element.text for element in root.iter() if element.text}
    assert {"PPO", "GRPO", "RLOO", "DPO", "best-of-n", "reward model's score", "VADER compound"} <= words
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 3 * 10  # two points a method, three panels
    rows = frontier.table(found).splitlines()
    cells = "1.33 [1.33, 1.33] | 1.00 [1.00, 1.00] | 1.67 [1.67, 1.67] | 0.67 [0.67, 0.67] | –"
    assert f"| 2 | reward model's score | {cells} |" in rows


def test_the_table_of_methods_shows_lowest_and_highest():
    def seed(value):
        judges = {"VADER": {"value": value}, "reviews classifier": {"value": 0.5}}
        per_method = dict.fromkeys(methods.METHODS, 10 * value)
        distinct = {method: {"distinct_2": 10 * value} for method in methods.METHODS}
        named = {"kl": per_method, "answer_tokens": per_method, "details": {"distinct_answers": distinct}}
        return {"win_rate": dict.fromkeys(methods.METHODS, judges), **named}

    rows = methods.table([seed(0.75), seed(0.5)]).splitlines()
    assert rows[2] == "| DPO | 50.0 to 75.0 | 50.0 | 5.0 to 7.5 | 5 to 8 | 5.00 to 7.50 |"
    assert len(rows) == 2 + 9
