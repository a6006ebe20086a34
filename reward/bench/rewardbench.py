"""RewardBench and RewardBench 2: which rows are theirs, and the sections that their scores are averaged over.

Papers: https://arxiv.org/abs/2403.13787 and https://arxiv.org/abs/2506.01937. Names and weights are those of
https://github.com/allenai/reward-bench at 05a9005, `rewardbench/constants.py` and `analysis/get_benchmark_results.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from alignment.errors import DataError

Benchmark = Literal["RewardBench", "RewardBench 2"]
PRIOR_SETS = "Prior Sets"
TIES = "Ties"

SUBSETS: Mapping[str, Mapping[str, int]] = {  # of each section of RewardBench, with their weights
    "Chat": {
        "alpacaeval-easy": 100,
        "alpacaeval-length": 95,
        "alpacaeval-hard": 95,
        "mt-bench-easy": 28,
        "mt-bench-med": 40,
    },
    "Chat Hard": {
        "mt-bench-hard": 37,
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100,
        "refusals-offensive": 100,
        "xstest-should-refuse": 154,
        "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    "Reasoning": {
        "math-prm": 984,  # 447 rows, weighted as much as the code
        **dict.fromkeys(("hep-cpp", "hep-go", "hep-java", "hep-js", "hep-python", "hep-rust"), 164),
    },
    PRIOR_SETS: dict.fromkeys(("anthropic_helpful", "anthropic_hhh", "shp", "summarize"), 1),
}
SECTIONS: Mapping[Benchmark, Mapping[str, float]] = {  # with their weights in the score
    "RewardBench": {section: 0.5 if section == PRIOR_SETS else 1.0 for section in SUBSETS},
    "RewardBench 2": dict.fromkeys(("Factuality", "Precise IF", "Math", "Safety", "Focus", TIES), 1.0),
}
_SECTION_OF = {subset: section for section, subsets in SUBSETS.items() for subset in subsets}
_PLAIN_NAMES = {name.casefold(): name for name in SECTIONS["RewardBench 2"]}
_SHARD = re.compile(r"-\d+-of-\d+$")
_TIES_ID = re.compile(r"(ref|tied):(\d+)")


@dataclass(frozen=True, slots=True)
class Published:
    """What a row is in a published benchmark."""

    benchmark: Benchmark
    section: str
    subset: str
    correct: int  # the first answers are the correct ones
    tied: bool = False  # one of several correct answers, in the section Ties
    pair: int = 0  # number of the prompt in the section Ties, which a reference and a tied row share


def published(row: Mapping[str, Any], where: str, answers: int) -> Published | None:
    """Return what a row is, or None if it is of neither benchmark.

    A row of RewardBench 2 has `subset` and counts of its answers; one of RewardBench a `subset` with a name of theirs.
    The prior sets have that name as their `subset`, or as the name of their file or split.

    Args:
        where: "file:line" of the row. answers: how many the row compares.

    Raises: DataError if the counts or the id contradict the layout.
    """
    subset = row.get("subset")
    name = _PLAIN_NAMES.get(subset.casefold()) if isinstance(subset, str) else None
    if name is not None and ("num_correct" in row or "total_completions" in row):
        return _second(row, where, answers, name)
    if isinstance(subset, str) and subset in _SECTION_OF:
        return Published("RewardBench", _SECTION_OF[subset], subset, 1)
    for part in _names(where):
        if _SECTION_OF.get(part) == PRIOR_SETS and isinstance(row.get("chosen"), str):
            return Published("RewardBench", PRIOR_SETS, part, 1)
    return None


def _second(row: Mapping[str, Any], where: str, answers: int, section: str) -> Published:
    correct = len(row["chosen"]) if isinstance(row.get("chosen"), list) else 1
    for key, counted in (("num_correct", correct), ("total_completions", answers)):
        if row.get(key) is not None and row[key] != counted:
            raise DataError(f"{where}: {key} is {row[key]}, and the row has {counted}; restore the published row.")
    if section != TIES:
        return Published("RewardBench 2", section, section, correct)
    found = _TIES_ID.fullmatch(str(row.get("id")))
    if found is None:
        raise DataError(
            f"{where}: id is {row.get('id')!r}, and rows of Ties have ref:NUMBER or tied:NUMBER, which pairs them."
        )
    return Published("RewardBench 2", section, section, correct, found[1] == "tied", int(found[2]))


def _names(where: str) -> list[str]:
    """Return the names of a row's split, file and folder."""
    file = where.rpartition(":")[0]
    if file.endswith("]"):
        return [file[file.rfind("[") + 1 : -1]]
    path = PurePath(file)
    return [_SHARD.sub("", path.name.partition(".")[0]), path.parent.name]
