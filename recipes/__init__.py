"""Stages as scripts for `accelerate launch`, each with its YAML in a folder per model."""
