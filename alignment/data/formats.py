"""The layouts of data sets: recognition by keys, and reading."""

import itertools
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from alignment.data.argilla import argilla, is_argilla
from alignment.data.label_studio import is_label_studio, label_studio
from alignment.data.layouts import (
    DEMONSTRATION,
    Parsed,
    Row,
    alpaca,
    conversation,
    kto,
    prompt_alone,
    prompt_completion,
    self_instruct,
    stanford_alpaca,
    text_alone,
)
from alignment.data.preference_layouts import (
    alpaca_preference,
    answers_a_conversation,
    hh,
    implicit_preference,
    is_alpaca_preference,
    llmbar,
    numbered,
    oasst,
    preference,
    sharegpt_dpo,
)
from alignment.data.published_layouts import arena, graded, openai_preference
from alignment.data.rankings import (
    RATINGS,
    ranking_from_json,
)
from alignment.data.thumbs import KEYS, PROBABILITY, is_class


@dataclass(frozen=True, slots=True)
class Format:
    """One layout."""

    name: str
    keys: str  # what a row must have, for messages
    matches: Callable[[Row], bool]
    read: Callable[[Row], list[Parsed]]  # a row may hold several; raises `BadRow`
    reads: tuple[str, ...]  # every key that it reads
    harmless: tuple[str, ...] = ()  # keys of well-known data sets that add nothing
    either: tuple[tuple[str, ...], ...] = ()  # groups of keys, of which only the first that a row has is read
    by_value: bool = False  # `matches` looks at values, not only at keys and types

    def harmless_in(self, row: Row) -> Collection[str]:
        """Return the keys of `row` that add nothing; a label does not count where it says good or bad."""
        judged = "label" in self.harmless and not is_class(row.get("label"))
        return tuple(key for key in self.harmless if key != "label") if judged else self.harmless

    def reads_in(self, row: Row) -> Collection[str]:
        """Return the keys of `row` that are read."""
        if not self.either and self.name != "argilla":
            return self.reads
        taken = next((group for group in self.either if group[0] in row), ())
        others = {key for group in self.either for key in group} - set(taken)
        return set(row if self.name == "argilla" and "fields" not in row else self.reads) - others


def _has(*keys: str) -> Callable[[Row], bool]:
    return lambda row: all(key in row for key in keys)


def _is_kto(row: Row) -> bool:
    if row.keys().isdisjoint(LABELS):
        return False
    answered = (("messages",), ("conversations",), ("prompt", "completion"), ("instruction", "output"))
    return any(row.keys() >= set(keys) for keys in answered)


def _is_hh(row: Row) -> bool:
    return all(isinstance(row.get(key), str) and _TRANSCRIPT.match(row[key]) for key in ("chosen", "rejected"))


_TRANSCRIPT = re.compile(r"\s*(Human|Assistant)\s*[:：]")  # with a wide colon it is rejected, not read as plain text
_AROUND = ("system", "tools")  # what goes before the prompt
LABELS = (*KEYS, PROBABILITY)
_CHOICE = ("chosen", "rejected", "probability", "margin", *itertools.chain.from_iterable(RATINGS), *_AROUND)
_TREE = ("message_tree_id", "tree_state", "prompt")
_LABEL_STUDIO = ("predictions", "drafts", "file_upload", "comment_authors", "updated_by", "state", "agreement_selected")
ANSWERS = "answers"  # without a comparison
FORMATS: tuple[Format, ...] = (  # the first match counts, so the narrower come first
    Format(
        "ranking",
        "prompt, responses, and pairs or ranks or scores",
        lambda row: _has("prompt", "responses")(row) and not row.keys().isdisjoint(("pairs", "ranks", "scores")),
        lambda row: [ranking_from_json(row)],
        ("prompt", "responses", "pairs", "ranks", "scores", "provenance", *_AROUND),
    ),
    Format(
        ANSWERS,
        "prompt, responses",
        _has("prompt", "responses"),
        lambda row: [ranking_from_json({**row, "pairs": []})],
        ("prompt", "responses", "provenance", *_AROUND),
    ),
    Format(
        "oasst",
        "message_tree_id, prompt with replies",
        lambda row: isinstance(row.get("prompt"), dict) and "replies" in row["prompt"],
        oasst,
        _TREE,
        by_value=True,
    ),
    Format(
        "llmbar",
        "input, output_1, output_2, label 1 or 2",
        _has("input", "output_1", "output_2", "label"),
        llmbar,
        ("input", "output_1", "output_2", "label"),
        harmless=("results",),
    ),
    Format(
        "numbered",
        "prompt, response_0, response_1, better 0 or 1",
        _has("prompt", "response_0", "response_1", "better"),
        numbered,
        ("prompt", "response_0", "response_1", "better", *_AROUND),
    ),
    Format(
        "graded",
        "prompt, response_1, response_2, preference_strength",
        _has("prompt", "response_1", "response_2", "preference_strength"),
        graded,
        ("prompt", "response_1", "response_2", "preference_strength", *_AROUND),
        harmless=("preference_statement", "preference_elaboration", "individual_preference"),
    ),
    Format(
        "arena",
        "conversation_a, conversation_b, winner",
        _has("conversation_a", "conversation_b", "winner"),
        arena,
        ("conversation_a", "conversation_b", "winner"),
    ),
    Format(
        "openai_preference",
        "input with messages, preferred_output, non_preferred_output",
        _has("input", "preferred_output", "non_preferred_output"),
        openai_preference,
        ("input", "preferred_output", "non_preferred_output"),
    ),
    Format(
        "argilla",
        "fields and responses by question, or QUESTION.responses with its users",
        is_argilla,
        lambda row: [*argilla(row)],
        ("fields", "responses", "id", "status"),
        harmless=("suggestions", "_server_id", "inserted_at", "updated_at"),
    ),
    Format(
        "label_studio",
        "data and annotations with pairwise or ranker results",
        is_label_studio,
        lambda row: [*label_studio(row)],
        ("data", "annotations", "id"),
        harmless=_LABEL_STUDIO,
    ),
    Format(
        "sharegpt_dpo",
        "conversations or messages, chosen, rejected",
        answers_a_conversation,
        sharegpt_dpo,
        ("conversations", "messages", *_CHOICE),
        either=(("conversations",), ("messages",)),
        by_value=True,
    ),
    Format(
        "preference",
        "prompt, chosen, rejected, or lists",
        _has("prompt", "chosen", "rejected"),
        preference,
        ("prompt", *_CHOICE),
    ),
    Format(
        "alpaca_preference",
        "instruction, chosen, rejected, and perhaps input",
        is_alpaca_preference,
        alpaca_preference,
        ("instruction", "input", "history", *(key for key in _CHOICE if key != "tools")),
    ),
    Format("hh", "chosen and rejected that begin with Human: or Assistant:", _is_hh, hh, _CHOICE, by_value=True),
    Format("implicit_preference", "chosen, rejected", _has("chosen", "rejected"), implicit_preference, _CHOICE),
    Format(
        "kto",
        "messages, conversations, prompt and completion, or instruction and output; and label, kto_tag or probability",
        _is_kto,
        kto,
        ("messages", "conversations", "prompt", "completion", *DEMONSTRATION, *LABELS, "tools", "provenance"),
        either=(
            ("messages", *_AROUND),
            ("conversations", *_AROUND),
            ("prompt", "completion", *_AROUND),
            DEMONSTRATION,
        ),
    ),
    Format(
        "sharegpt",
        "conversations of from and value",
        _has("conversations"),
        conversation("conversations"),
        ("conversations", *_AROUND),
    ),
    Format(
        "messages", "messages of role and content", _has("messages"), conversation("messages"), ("messages", *_AROUND)
    ),
    Format(
        "self_instruct",
        "instruction, instances",
        _has("instruction", "instances"),
        self_instruct,
        ("instruction", "instances"),
        harmless=("motivation_app",),
    ),
    Format("alpaca", "instruction, output, and perhaps input", _has("instruction", "output"), alpaca, DEMONSTRATION),
    Format(
        "stanford_alpaca",
        "instruction, output, and perhaps input; by name alone",
        lambda _: False,  # it is `alpaca` unless it is named
        stanford_alpaca,
        DEMONSTRATION,
    ),
    Format(
        "prompt_completion",
        "prompt, completion",
        _has("prompt", "completion"),
        prompt_completion,
        ("prompt", "completion", *_AROUND),
    ),
    Format(
        "text",
        "text or full_text",
        lambda row: "text" in row or "full_text" in row,
        text_alone,
        ("text", "full_text"),
        harmless=("label", "title", "spans", "masked"),
        either=(("text",), ("full_text",)),
    ),
    Format(
        "prompt",
        "prompt",
        _has("prompt"),
        prompt_alone,
        ("prompt", *_AROUND),
        harmless=("instruction_id_list", "kwargs"),
    ),
)
