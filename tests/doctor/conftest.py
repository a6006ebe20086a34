"""Recipes to look at."""

from tests.preview.conftest import recipe as recipe
