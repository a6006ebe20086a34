"""What a watcher's log becomes on the page: a chart, and words where the fit allows them."""

import json
import math

import pytest

from alignment.report import build
from alignment.report.overoptimization import gaps
from tests.report.fake import write_pipeline


def log(watched, updates=24, furthest=4.0, every=1):
    rows = []
    for u in range(updates):
        d = furthest * u / (updates - 1)
        row = {"step": 4 * (u + 1), "score": 1 + 2 * d, "score_std": 2.0, "kl": d * d - 1e-6}
        if u % every == 0:
            row |= {"watch_gold": 5 + 3 * watched(d), "watch_gold_spread": 3.0}
        rows.append(row)
    return rows


def turning(d):
    return d * (1.5 - 0.9 * math.log(d)) if d else 0.0


def test_a_turn_is_reported_with_its_place_and_its_loss():
    (gap,) = gaps(log(turning))
    assert gap.has_turned
    # e^(1.5 / 0.9 - 1) = 1.948 and its square 3.794; it gained 0.9 · 1.948 = 1.753; at 4 there is 4 (1.5 - 0.9 ln 4)
    # = 1.0093, 0.744 less. What trains rises 2 d / 2 = 4, the watcher 1.0093
    assert gap.claim == "gold has turned down at √KL 1.95, a KL of 3.79 nats an answer"
    assert "it gained 1.75 standard deviations up to there and has lost 0.744 since" in gap.evidence
    assert "with α 1.50 and β 0.900" in gap.evidence
    assert "At the end what trains has risen 2.99 standard deviations more than gold." in gap.evidence
    assert gap.evidence.endswith("Stop there, or hold the KL with adaptive_kl_target: 3.79.")
    trained, watched, fitted = gap.chart.lines
    assert (trained.path, watched.path) == ("", "")
    assert len(watched.dots) == 24
    assert fitted.path
    assert watched.points[-1] == pytest.approx((4.0, turning(4.0)), abs=1e-3)
    assert gap.chart.data()["across"] == "√KL"


def test_only_updates_that_were_watched_count():
    (gap,) = gaps(log(turning, updates=48, every=3))
    assert len(gap.chart.lines[1].dots) == 16


def test_a_rise_is_reported_within_the_range_of_the_fit():
    (gap,) = gaps(log(lambda d: d * (2.3 - 0.9 * math.log(d)) if d else 0.0))  # peak at e^(2.3 / 0.9 - 1) = 4.74
    assert (gap.claim, gap.has_turned) == ("gold still rises", False)
    assert "the run went to √KL 4.00, and by the fit" in gap.evidence
    assert "it would turn at √KL 4.74" in gap.evidence
    (far,) = gaps(log(lambda d: d * (6.0 - 0.9 * math.log(d)) if d else 0.0))
    assert far.claim == ""
    assert len(far.chart.lines) == 2


def test_nothing_is_reported_where_nothing_is_determined():
    (gap,) = gaps(log(lambda d: d + 0.3 * math.sin(40 * d)))
    assert gap.claim == ""
    (few,) = gaps(log(turning, updates=5))
    assert few.claim == ""
    assert gaps(log(turning)[:1]) == []
    assert gaps([{"step": 1, "score": 1.0}]) == []


def test_it_is_on_the_page(tmp_path):
    folder = write_pipeline(tmp_path)
    (folder / "ppo" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log(turning)))
    page = build([folder], tmp_path / "page.html").read_text()
    assert "gold has turned down at √KL 1.95" in page
    assert "Over-optimisation by gold" in page
