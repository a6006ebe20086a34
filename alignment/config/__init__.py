"""Typed recipes: strict YAML in, frozen models out. Imports no torch."""

from alignment.config.loading import check_recipe, load_recipe
from alignment.config.pipelines import check_file, load_pipeline

__all__ = ["check_file", "check_recipe", "load_pipeline", "load_recipe"]
