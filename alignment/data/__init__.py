"""Data: formats, sources, chat templates and loss masks; importing it imports no torch."""

from alignment.data.load import (
    load_answers,
    load_demonstrations,
    load_prompts,
    load_rankings,
    load_rows,
    load_unpaired,
    require_data,
)
from alignment.data.rankings import ranking_from_json, ranking_to_json
from alignment.data.source_rows import Loaded
from alignment.data.splits import load_split, split_by_prompt

__all__ = [
    "Loaded",
    "load_answers",
    "load_demonstrations",
    "load_prompts",
    "load_rankings",
    "load_rows",
    "load_split",
    "load_unpaired",
    "ranking_from_json",
    "ranking_to_json",
    "require_data",
    "split_by_prompt",
]
