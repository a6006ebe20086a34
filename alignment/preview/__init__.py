"""Preview of the rows that a recipe trains on, as text."""
