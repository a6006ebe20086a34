"""Criteria for rating answers."""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

from alignment.calls.replies import well_formed
from alignment.calls.yaml_files import read_yaml
from alignment.errors import JudgeError

SCALE = range(1, 11)


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion."""

    name: str
    text: str  # as in the prompt
    weight: float = 1.0  # in the mean over criteria


@dataclass(frozen=True, slots=True)
class Rubric:
    """A file of criteria.

    It is YAML: `criteria`, a list of mappings with `name` and `description`, and optionally `weight` (default 1) and
    `levels`, which describe numbers of the scale from 1 to 10.
    """

    criteria: tuple[Criterion, ...]
    hash: str  # first 16 hexadecimal digits of the file's SHA-256

    @classmethod
    def load(cls, path: str) -> "Rubric":
        """Read the file.

        Raises: JudgeError with the file and the criterion if it is not valid.
        """
        data, given = read_yaml(path, "judge.rubric")
        rows = given.get("criteria") if isinstance(given, dict) else None
        if not isinstance(rows, list) or not rows:
            raise JudgeError(f"judge.rubric {path}: has no list of criteria; give `criteria:` and a list.")
        criteria = tuple(
            _criterion(row, f"judge.rubric {path}: criterion {place}") for place, row in enumerate(rows, 1)
        )
        names = [criterion.name for criterion in criteria]
        doubles = [name for place, name in enumerate(names) if name in names[:place]]
        if doubles:
            raise JudgeError(f"judge.rubric {path}: two criteria are named {doubles[0]}; give each its own name.")
        return cls(criteria, hashlib.sha256(data).hexdigest()[:16])


def _criterion(row: Any, at: str) -> Criterion:
    known = ("name", "description", "weight", "levels")
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) and row[key].strip() for key in known[:2]):
        raise JudgeError(f"{at} is not a mapping with the texts `name` and `description`.")
    unknown = [str(key) for key in row if key not in known]
    if unknown:
        raise JudgeError(f"{at} has the key {unknown[0]}; known are {', '.join(known)}.")
    weight, levels = row.get("weight", 1.0), row.get("levels") or {}
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise JudgeError(f"{at}: `weight` must be a number above 0, found {weight!r}.")
    if not isinstance(levels, dict) or not all(
        type(number) is int and number in SCALE and isinstance(text, str) for number, text in levels.items()
    ):
        raise JudgeError(f"{at}: `levels` must map whole numbers from 1 to 10 to texts, found {levels!r}.")
    lines = [f"{row['name']}: {row['description'].strip()}"]
    lines += [f"{number:<3} {levels[number].strip()}" for number in sorted(levels, reverse=True)]
    return Criterion(row["name"], well_formed("\n".join(lines)), float(weight))
