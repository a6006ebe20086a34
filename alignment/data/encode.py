"""Rows to token ids within a length, and the refusal to train where nothing could be learned."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from alignment.data.conversations import readable
from alignment.data.rows import Demonstration, Prompt
from alignment.data.template import IGNORE, Template
from alignment.errors import DataError

Labelled = tuple[Sequence[int], Sequence[int]]  # input_ids and labels of one row


@dataclass
class LabelCounts:
    """What the loss would see."""

    rows: int = 0
    masked: int = 0  # rows without one label
    stopping: int = 0  # rows whose labels hold a stop token
    truncated: int = 0  # rows cut to max_length, which lose the stop token
    skipped: list[str] = field(default_factory=list)  # rows whose prompt leaves no room for an answer


def require_learnable(rows: Iterable[Labelled], template: Template) -> LabelCounts:
    """Count what can be learned from.

    Raises: DataError where every label is masked, or where no row teaches the stop token.
    """
    counts, stops = LabelCounts(), set(template.stop_token_ids)
    for _, labels in rows:
        counts.rows += 1
        counts.masked += all(label == IGNORE for label in labels)
        counts.stopping += any(label in stops for label in labels)
    if counts.masked == counts.rows:
        raise DataError(
            f"every label of all {counts.rows} rows is masked, so there is nothing to learn. Raise max_length, or "
            "check that the data has answers and the chat template writes them."
        )
    if not counts.stopping:
        tokens = ", ".join(repr(token) for token in template.tokenizer.convert_ids_to_tokens(sorted(stops)))
        raise DataError(
            f"none of {counts.rows} rows teaches the stop token ({tokens}): a model trained on them would never end an "
            "answer. Raise max_length, or name the right eos_token."
        )
    return counts


def encode_demonstrations(
    rows: Sequence[Demonstration], template: Template, *, max_length: int | None, on_bad_row: str = "stop"
) -> tuple[list[dict[str, list[int]]], LabelCounts]:
    """Return `input_ids` and `labels` of each row, cut at `max_length` tokens, and the counts.

    Raises: DataError naming a row that cannot be encoded or whose prompt alone fills `max_length`, unless `on_bad_row`
    is skip, and as `require_learnable`.
    """
    encoded: list[dict[str, list[int]]] = []
    skipped: list[str] = []
    truncated = 0
    for row in rows:
        try:
            ids, labels = template.demonstration(row)
            if max_length is not None and len(ids) > max_length:
                ids, labels = ids[:max_length], labels[:max_length]
                truncated += 1
                if all(label == IGNORE for label in labels):
                    raise DataError(f"the prompt alone fills max_length {max_length}, so no answer is left")
        except DataError as error:
            if on_bad_row != "skip":
                raise DataError(f"{row.source or readable(row.prompt)[:80]}: {error}") from None
            skipped.append(f"{row.source}: {error}")
            continue
        encoded.append({"input_ids": ids, "labels": labels})
    counts = require_learnable([(row["input_ids"], row["labels"]) for row in encoded], template)
    counts.truncated, counts.skipped = truncated, skipped
    return encoded, counts


def encode_prompts(
    prompts: Sequence[Prompt], template: Template, *, max_length: int | None, on_bad_row: str = "stop"
) -> tuple[list[Prompt], list[list[int]], list[str]]:
    """Return the prompts that fit in `max_length` tokens, their ids, and what was skipped.

    Raises: DataError naming a prompt that is longer, unless `on_bad_row` is skip, and where none is left.
    """
    kept: list[Prompt] = []
    encoded: list[list[int]] = []
    skipped: list[str] = []
    for number, prompt in enumerate(prompts, start=1):
        ids = template.prompt_ids(prompt)
        if max_length is None or len(ids) <= max_length:
            kept.append(prompt)
            encoded.append(ids)
            continue
        fault = f"prompt {number} of {len(prompts)} has {len(ids)} tokens, more than {max_length}: "
        fault += repr(readable(prompt)[:60])
        if on_bad_row != "skip":
            raise DataError(f"{fault}. Shorten it, raise max_prompt_length, or set on_bad_row: skip.")
        skipped.append(fault)
    if not kept:
        raise DataError(f"none of {len(prompts)} prompts fits in {max_length} tokens.")
    return kept, encoded, skipped
