"""Recipes of TRL, LLaMA-Factory and axolotl, converted key by key.

A peer is one module with a table (`alignment.importing.keys.Key`): each of its keys is translated, dropped or refused.
The conversion, its output and the tables in docs/import.md read that table.
"""
