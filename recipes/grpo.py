"""GRPO: trains a policy on scores relative to a group of answers, without a value.

accelerate launch recipes/grpo.py --config grpo.yaml [--key value …]
"""

from recipes.ppo import align, preview  # isort: skip, it turns off the telemetry of the libraries below

from alignment.config.schema import GRPORecipe
from alignment.run.script import script

__all__ = ["main", "preview"]  # preview reads the rows that `alignment preview` shows


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    align(GRPORecipe, argv)


if __name__ == "__main__":
    script(main)
