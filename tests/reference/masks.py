"""Training rows of a conversation, made slowly and apart from the product.

Each answer is rendered whole by transformers' own `apply_chat_template`, tokenised with offsets, and aligned by
characters: what begins at or after the end of the generation prompt, and ends at or before the end of the stop token.
"""

from collections.abc import Callable
from typing import Any

IGNORE = -100
Row = tuple[list[int], list[int]]


class Unlike(Exception):
    """The template does not write the answer after its generation prompt."""


def rows(
    tokenizer: Any, messages: list[dict[str, Any]], tools: Any, stops: list[int], end: Callable[[str | None], int]
) -> list[Row]:
    """Return ids and labels; answers share a row while everything before them is unchanged.

    `end` gives the stop token of a turn that the template does not end, by the role of the next.
    """
    made: list[Row] = []
    for place, message in enumerate(messages):
        if message["role"] != "assistant" or message.get("weight") == 0:
            continue
        following = messages[place + 1]["role"] if place + 1 < len(messages) else None
        made.append(_one(tokenizer, messages[: place + 1], tools, stops, end(following)))
    joined: list[Row] = []
    for ids, labels in made:
        if joined:
            before_ids, before_labels = joined[-1]
            context = labels.count(IGNORE)
            if len(before_ids) <= context and ids[: len(before_ids)] == before_ids:
                joined[-1] = (ids, [*before_labels, *labels[len(before_ids) :]])
                continue
        joined.append((ids, labels))
    return joined


def _one(tokenizer: Any, messages: list[dict[str, Any]], tools: Any, stops: list[int], end: int) -> Row:
    def text(turns: list[dict[str, Any]], prompt: bool) -> str:
        plain = [{key: value for key, value in turn.items() if key != "weight"} for turn in turns]
        return tokenizer.apply_chat_template(plain, tools=tools, tokenize=False, add_generation_prompt=prompt)

    before, whole = text(messages[:-1], True), text(messages, False)
    if not whole.startswith(before):
        raise Unlike(f"{before!r} does not begin {whole!r}")
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    ids, labels = [], []
    for token, (low, high) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        if low < len(before) < high:
            raise Unlike(f"a token reaches over the end of {before!r}")
        ids.append(token)
        labels.append(token if low >= len(before) else IGNORE)
        if low >= len(before) and token in stops:
            return ids, labels
    return [*ids, end], [*labels, end]
