"""Typed recipes: strict YAML in, frozen models out. Imports no torch."""

from alignment.config.loading import check_recipe, load_recipe, resolved

__all__ = ["check_recipe", "load_recipe", "resolved"]
