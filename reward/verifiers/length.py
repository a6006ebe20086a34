"""The reward `length`: 1 while a text's count of characters, words or sentences is in a range."""

import math

from alignment.errors import ScorerError
from alignment.strict_json import shown
from reward.verifiers.counting import COUNTERS, Unit


def measure(answer: str, unit: Unit) -> int:
    """Return the answer's count in a unit, with the counters of `ifeval`.

    Raises: ScorerError if the unit is unknown.
    """
    if unit not in COUNTERS:
        raise ScorerError(f"length unit {shown(unit)} is unknown; use one of {', '.join(COUNTERS)}.")
    return COUNTERS[unit](answer)


def check_range(minimum: float | None, maximum: float | None, margin: float) -> None:
    """Check the arguments of `within` once for all answers.

    Raises: ScorerError if both bounds are absent, they are in the wrong order, or a number is negative or not finite.
    """
    for name, number in (("minimum", minimum), ("maximum", maximum), ("margin", margin)):
        if number is not None and not (math.isfinite(number) and number >= 0):
            raise ScorerError(f"length {name} {number} must be a finite number, 0 or more.")
    if minimum is None and maximum is None:
        raise ScorerError("length has neither minimum nor maximum; set at least one.")
    if minimum is not None and maximum is not None and minimum > maximum:
        raise ScorerError(f"length minimum {minimum} is greater than maximum {maximum}; swap them.")


def within(count: float, minimum: float | None, maximum: float | None, margin: float = 0.0) -> float:
    """Return 1 if `count` is in [minimum, maximum]; outside, 1 - distance / margin, and at least 0.

    Args:
        minimum, maximum: both belong to the range; None: no bound. margin: the distance to the range at which the
            reward reaches 0; 0: it is 0 everywhere outside.
    """
    check_range(minimum, maximum, margin)
    below = minimum - count if minimum is not None else 0.0
    above = count - maximum if maximum is not None else 0.0
    distance = max(below, above, 0.0)
    if distance == 0:
        return 1.0
    return max(0.0, 1.0 - distance / margin) if margin > 0 else 0.0
