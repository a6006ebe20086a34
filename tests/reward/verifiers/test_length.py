"""The reward for a length: inside, at the bounds, and along the margin."""

from typing import Any

import pytest

from alignment.errors import ScorerError
from reward.verifiers.length import check_range, measure, within


@pytest.mark.parametrize(
    ("count", "arguments", "reward"),
    [
        (10, (10, 20, 0), 1.0),
        (20, (10, 20, 0), 1.0),
        (9, (10, 20, 0), 0.0),
        (21, (10, 20, 0), 0.0),
        (9, (10, 20, 4), 0.75),  # 1 - 1/4
        (23, (10, 20, 4), 0.25),  # 1 - 3/4
        (24, (10, 20, 4), 0.0),
        (90, (10, 20, 4), 0.0),
        (0, (None, 5, 2), 1.0),
        (6, (None, 5, 2), 0.5),
        (1_000_000, (3, None, 2), 1.0),
        (2, (3, None, 2), 0.5),
        (5, (5, 5, 1), 1.0),
        (5.2, (5, 5, 0.5), 0.6),
    ],
)
def test_the_reward_falls_linearly_along_the_margin(count: float, arguments: Any, reward: float) -> None:
    assert within(count, *arguments) == pytest.approx(reward, abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, None, 0), "neither minimum nor maximum"),
        ((5, 4, 0), "minimum 5 is greater than maximum 4"),
        ((-1, 4, 0), "minimum -1 must be"),
        ((1, float("inf"), 0), "maximum inf must be"),
        ((1, 4, float("nan")), "margin nan must be"),
        ((1, 4, -0.5), "margin -0.5 must be"),
    ],
)
def test_a_range_that_cannot_be_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ScorerError, match=message):
        check_range(*arguments)


def test_an_answer_is_measured_in_three_units() -> None:
    text = "Ça va. Oui!"
    assert [measure(text, unit) for unit in ("characters", "words", "sentences")] == [11, 3, 2]


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(ScorerError, match="unit 'tokens' is unknown; use one of characters, words, sentences"):
        measure("text", "tokens")  # type: ignore[arg-type]
