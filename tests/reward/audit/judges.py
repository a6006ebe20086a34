"""Judges for the tests, named in recipes as `tests.reward.audit.judges:…`."""


def alphabetical(prompt: object, first: str, second: str) -> float:
    """Prefers what comes earlier in the alphabet, and says so with less certainty than it might."""
    return 0.8 if first < second else 0.2


def contrary(prompt: object, first: str, second: str) -> float:
    return 1 - alphabetical(prompt, first, second)


def first_shown(prompt: object, first: str, second: str) -> float:
    return 0.9


def undecided(prompt: object, first: str, second: str) -> float:
    return 0.5
