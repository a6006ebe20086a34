"""Constraints for pip that hold the libraries below training at the oldest versions that pyproject.toml allows."""

import re
import sys
from pathlib import Path

LIBRARIES = ("transformers", "trl", "peft", "accelerate")
BOUND_BY_THEM = ("huggingface-hub", "tokenizers")  # newer ones do not go with the oldest transformers
ROOT = Path(__file__).parents[1]


def floors(names: tuple[str, ...] = LIBRARIES) -> dict[str, str]:
    """The lowest version of each library that pyproject.toml allows."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return {name: re.findall(rf'^  "{name}>=([^",]+)', text, re.MULTILINE)[0] for name in names}


def constraints(**others: str) -> list[str]:
    """The lines of constraints.txt, with the floors, and the versions of `others`, in place of what they replace."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    versions = {**floors(), **others}
    replaced = (*versions, *BOUND_BY_THEM)
    kept = [line for line in lines if line.partition("==")[0].lower().replace("_", "-") not in replaced]
    return [*kept, *(f"{name}=={version}" for name, version in versions.items())]


if __name__ == "__main__":  # with NAME=VERSION of others to replace
    sys.stdout.write("\n".join(constraints(**dict(word.split("=", 1) for word in sys.argv[1:]))) + "\n")
