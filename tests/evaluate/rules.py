"""Judges for tests."""


def shorter(prompt, first, second):
    return 1.0 if len(first) < len(second) else 0.0 if len(first) > len(second) else 0.5


def always_the_first(prompt, first, second):
    return 1.0


def broken(prompt, first, second):
    return float("nan")
