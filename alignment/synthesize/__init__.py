"""Rows that a language model writes: Self-Instruct, Evol-Instruct, Magpie and answers to given prompts."""
