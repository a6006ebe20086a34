import pytest

from alignment.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    axis_number,
    chart,
    nice_ticks,
    number,
    smoothed,
)
from alignment.report.curves import charts_of, not_finite, series_of


def test_points_land_where_the_axes_say():
    drawn = chart("Loss", [("training", [(0, 0.0), (50, 1.0), (100, 4.0)])])
    across = [(t.label, t.at) for t in drawn.x_ticks]
    up = [(t.label, t.at) for t in drawn.y_ticks]
    assert (across[0], across[-1]) == (("0", LEFT), ("100", WIDTH - RIGHT))
    assert (up[0], up[-1]) == (("0", HEIGHT - BOTTOM), ("4", TOP))
    # y of 1.0 lies a quarter of the way up; x of 50 half way across
    x, y = LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) / 4
    assert f"L{x:g},{y:g}L" in drawn.lines[0].path
    assert drawn.summary == "0 → 4.00"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.5, 1.0]),
        (0.31, 0.69, [0.3, 0.4, 0.5, 0.6, 0.7]),
        (-3, 14, [-5, 0, 5, 10, 15]),
        (0, 320, [0, 100, 200, 300, 400]),
    ],
)
def test_ticks_are_round_and_enclose(low, high, ticks):
    assert nice_ticks(low, high, 4) == pytest.approx(ticks, abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 1.0, -5e-9, 3e12])
def test_a_constant_has_an_axis_around_it(value):
    drawn = chart("x", [("x", [(1, value), (2, value)])])
    ticks = [t.at for t in drawn.y_ticks]
    assert min(ticks) < drawn.lines[0].end[1] < max(ticks)


def test_one_point_is_drawn():
    assert chart("x", [("x", [(7, 1.0)])]).lines[0].dots


def test_smoothing_keeps_a_straight_line_and_averages_noise():
    assert smoothed([3.0 * i for i in range(20)], 4) == pytest.approx([3.0 * i for i in range(20)], abs=1e-12)
    # In the middle of 0 1 0 1 0: mean 2/5, the slope counts nothing there
    assert smoothed([0, 1, 0, 1, 0], 2)[2] == pytest.approx(0.4, abs=1e-12)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.5, "0.500"),
        (-1.234, "−1.23"),
        (99.97, "100"),
        (1234.5, "1,234"),
        (2.5e7, "2.50e7"),
        (1e-5, "1.00e-5"),
    ],
)
def test_numbers_read_well(value, text):
    assert number(value) == text


def test_axis_labels_have_the_decimals_they_need():
    assert [axis_number(t, [0.0, 0.05, 0.1]) for t in (0.0, 0.05, 0.1)] == ["0.00", "0.05", "0.10"]
    assert axis_number(20_000, [0, 20_000, 40_000]) == "20k"


def test_training_and_held_out_share_a_chart_and_the_rest_is_folded():
    metrics = [
        {"step": 1, "loss": 2.0, "epoch": 0.1, "odd_key": 1},
        {"step": 2, "loss": 1.0, "odd_key": 2, "eval_odd_key": 3, "note": "text", "flag": True},
        {"step": 2, "eval_loss": 1.5, "eval_odd_key": 4, "train_runtime": 3.0},
        {"step": 3, "eval_odd_key": 4.5, "eval_runtime": 1.0},
        {"step": 4, "eval_runtime": 1.0},
    ]
    main, more, single = charts_of(metrics)
    assert [(c.title, [line.label for line in c.lines]) for c in main] == [("Loss", ["training", "held out"])]
    assert [(c.title, [line.label for line in c.lines]) for c in more] == [("odd_key", ["training", "held out"])]
    assert single == {"train_runtime": 3.0}


def test_nan_is_reported_and_not_drawn():
    metrics = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": float("inf")}]
    assert series_of(metrics) == {"loss": [(1.0, 1.0)]}
    assert not_finite(metrics) == ["loss is not finite from step 2"]


def test_a_step_logged_again_after_a_resume_keeps_the_last_value():
    assert series_of([{"step": 1, "loss": 5.0}, {"step": 1, "loss": 4.0}]) == {"loss": [(1.0, 4.0)]}
