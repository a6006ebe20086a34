"""`alignment run`: the stages of a pipeline in order."""
