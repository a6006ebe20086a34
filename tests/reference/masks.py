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

    `end` gives the stop token of a turn that the template does not end, by the role of the next; a tool's follows a
    call.
    """
    made: list[Row] = []
    for place, message in enumerate(messages):
        if message["role"] != "assistant" or message.get("weight") == 0:
            continue
        following = messages[place + 1]["role"] if place + 1 < len(messages) else after(message)
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


def after(message: dict[str, Any]) -> str | None:
    """Return the role of what follows a last message: a tool's where it calls one."""
    calls = message.get("tool_calls") or (message["content"] or "").endswith("</tool_call>")
    return "tool" if calls else None


def context(tokenizer: Any, messages: list[dict[str, Any]], tools: Any = None) -> list[int]:
    """Return the ids that an answer to `messages` is generated from."""
    text = _written(tokenizer, messages, tools, prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def answer(tokenizer: Any, messages: list[dict[str, Any]], tools: Any, stops: list[int], end: int) -> list[int]:
    """Return the ids of the last message, with its stop token, after the context of those before."""
    _, labels = _one(tokenizer, messages, tools, stops, end)
    return [label for label in labels if label != IGNORE]


def continued(tokenizer: Any, prompt: str, completion: str, end: int) -> Row:
    """Return the row of a text that continues another, behind what the tokenizer puts before any text."""
    begin = tokenizer("", add_special_tokens=True)["input_ids"]
    last = tokenizer("a", add_special_tokens=True)["input_ids"][-1]
    ids = [token for token in begin if token != last or token == tokenizer.bos_token_id]
    labels = [IGNORE] * len(ids)
    return _aligned(tokenizer, prompt, prompt + completion, [end], end, ids, labels)


def _one(tokenizer: Any, messages: list[dict[str, Any]], tools: Any, stops: list[int], end: int) -> Row:
    before = _written(tokenizer, messages[:-1], tools, prompt=True)
    whole = _written(tokenizer, messages, tools, prompt=False)
    if not whole.startswith(before) and before.endswith("<think>\n") and "</think>" in messages[-1]["content"]:
        whole = before + messages[-1]["content"].removeprefix("<think>\n")  # the thought is open already
    if not whole.startswith(before):
        raise Unlike(f"{before!r} does not begin {whole!r}")
    return _aligned(tokenizer, before, whole, stops, end, [], [])


def _written(tokenizer: Any, turns: list[dict[str, Any]], tools: Any, *, prompt: bool) -> str:
    plain = [{key: value for key, value in turn.items() if key != "weight"} for turn in turns]
    return str(tokenizer.apply_chat_template(plain, tools=tools, tokenize=False, add_generation_prompt=prompt))


def _aligned(
    tokenizer: Any, before: str, whole: str, stops: list[int], end: int, ids: list[int], labels: list[int]
) -> Row:
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    for token, (low, high) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        if low < len(before) < high:
            raise Unlike(f"a token reaches over the end of {before!r}")
        ids.append(token)
        labels.append(token if low >= len(before) else IGNORE)
        if low >= len(before) and token in stops:
            return ids, labels
    return [*ids, end], [*labels, end]
