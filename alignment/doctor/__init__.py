"""Preflight: what is wrong with a machine, or with a recipe on it, found in seconds and each with its remedy."""
