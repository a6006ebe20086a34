"""Feedback and what learns from it: judges, labels, reward models, scorers."""
