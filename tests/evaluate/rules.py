"""Judges for tests."""


def shorter(prompt, first, second):
    return 1.0 if len(first) < len(second) else 0.0 if len(first) > len(second) else 0.5
