"""Preflight checks of a machine, and of recipes on it; each finding has a remedy."""
