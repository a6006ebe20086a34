"""Time to the same reward: a curve in processor seconds, the update that reaches the target, the table."""

import pytest

from benchmarks import time_to_reward
from benchmarks.time_to_reward import curve, reached, table

SPENT = {"cpu_seconds": 30.0, "wall_seconds": 60.0}


def log(*scores):
    seconds = {"seconds_sample": 1.0, "seconds_score": 3.0, "seconds_train": 6.0}
    return [{"score": score, "kl": number, **seconds} for number, score in enumerate(scores)] + [{"train_runtime": 9.0}]


def test_an_update_is_measured_before_its_steps_in_processor_seconds():
    points = curve(log(0.0, 3.0, 6.0, 9.0), SPENT)
    assert [point["seconds"] for point in points] == pytest.approx([2, 7, 12, 17])
    assert [point["score"] for point in points] == pytest.approx([0, 1.5, 3, 6])  # of at most three updates


def test_the_target_is_the_last_score_with_all_layers(monkeypatch):
    monkeypatch.setattr(time_to_reward, "VARIANTS", {"all layers": {}, "top 1": {}, "top 2": {}})
    curves = {
        "all layers": curve(log(0, 0, 0, 6), SPENT),
        "top 1": curve(log(6, 0, 0, 3, 6), SPENT),  # its first update alone has the score, but not three of them
        "top 2": curve(log(0, 0, 0, 0), SPENT),
    }
    found = {name: [reached(curves, name)] for name in curves}
    assert found["top 1"][0]["target"] == 2
    assert (found["top 1"][0]["seconds"], found["top 1"][0]["kl"]) == (pytest.approx(12), 2)
    assert found["top 2"][0]["seconds"] is None
    rows = table(found).splitlines()
    assert rows[3].startswith("| top 1 | 5.0 | 12 | 1.42 | 2.0 |")
    assert rows[4].startswith("| top 2 | 5.0 | – | 0 of 1 seeds reach it | – |")
