"""Verifiable rewards: pure functions that check a text against its reference, constraints, pattern or length."""
