"""Pretraining. A module for each objective, and beside them the reading of text, the stream and the trainer."""
