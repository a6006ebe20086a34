"""RLOO: trains a policy on scores relative to the other answers of a group, without a value.

accelerate launch recipes/rloo.py --config rloo.yaml [--key value …]
"""

from recipes.ppo import align, preview  # isort: skip, it turns off the telemetry of the libraries below

from alignment.config.schema import RLOORecipe
from alignment.run.script import script

__all__ = ["main", "preview"]  # preview reads the rows that `alignment preview` shows


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    align(RLOORecipe, argv)


if __name__ == "__main__":
    script(main)
