"""Well-known data sets and exports that no layout reads as they are: their names, and how to read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.data.formats import Format
from alignment.data.inner_columns import renamed
from alignment.data.keys import as_yaml, unread


@dataclass(frozen=True, slots=True)
class Known:
    """A data set by keys that its rows have; it is read with `columns`, or else written anew as `instead` describes."""

    name: str
    keys: tuple[str, ...]
    instead: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


_ARENA = (
    "conversation_a and conversation_b, lists of messages with the same question, and winner: model_a, model_b or tie"
)
_CALLS = "messages: the question as the user's, and a message of the assistant with the calls as tool_calls"
KNOWN = (
    Known(
        "stanfordnlp/SHP",
        ("history", "human_ref_A", "human_ref_B", "labels"),
        columns={
            "prompt": "history", "response_0": "human_ref_B", "response_1": "human_ref_A", "better": "labels",
        },  # labels is 1 where human_ref_A is better
    ),
    Known(
        "nvidia/HelpSteer3",
        ("context", "response1", "response2", "overall_preference"),
        columns={
            "prompt": "context", "response_1": "response1", "response_2": "response2",
            "preference_strength": "overall_preference",
        },
    ),
    Known("lmarena-ai/arena-human-preference-55k", ("response_a", "response_b", "winner_model_a"), _ARENA),
    Known(
        "openai/webgpt_comparisons",
        ("question", "answer_0", "answer_1", "score_0", "score_1"),
        "question.full_text as prompt, [answer_0, answer_1] as responses and [score_0, score_1] as scores",
    ),
    Known(
        "openai/summarize_from_feedback",
        ("info", "summaries", "choice"),
        "info.post as prompt, the texts of summaries as responses, and ranks: [0, 1] where choice is 0, else [1, 0]",
    ),
    Known(
        "Gemini",
        ("contents",),
        "messages: systemInstruction as the message of the system, and each of contents as role and the text of its "
        "parts as content",
    ),
    Known(
        "steps with labels (TRL's stepwise supervision, Math-Shepherd, PRM800K)",
        ("prompt", "completions", "labels"),
        "answers that are compared, prompt with chosen and rejected: process reward models are not trained here",
    ),
    Known("Salesforce/xlam-function-calling-60k", ("query", "answers", "tools"), _CALLS),
    Known(
        "glaiveai/glaive-function-calling-v2",
        ("system", "chat"),
        "messages: the turns of chat as user, assistant and tool, with the calls as tool_calls, and the functions in "
        "system as tools",
    ),
)  # fmt: skip


def known_remedy(row: Mapping[str, Any], formats: Sequence[Format]) -> str:
    """Return how to read a row of a well-known data set, as the end of a sentence; "" for other rows."""
    found = next((one for one in KNOWN if _fits(row, one)), None)
    if found is None:
        return ""
    start = f"The row has the keys of {found.name}"
    if not found.columns:
        return f"{start}; write {found.instead}"
    read = renamed(row, found.columns)
    fmt = next(one for one in formats if one.matches(read))
    spare = unread(read, fmt.reads_in(read), fmt.harmless_in(read))
    columns = ", ".join(f"{ours}: {theirs}" for ours, theirs in found.columns.items())
    rest = f" and ignore_columns: [{', '.join(map(as_yaml, spare))}]" if spare else ""
    return f"{start}. To read them as the layout {fmt.name}, set columns: {{{columns}}}{rest}"


def _fits(row: Mapping[str, Any], known: Known) -> bool:
    lists = (isinstance(row["contents"], list) for key in known.keys if key == "contents" and key in row)
    return all(row.get(key) is not None for key in known.keys) and all(lists)
