"""The marks around turns in a chat template: each must be one token of the tokenizer."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from alignment.data.stops import PROBE, Render, after_answer
from alignment.errors import DataError, ModelError

MARK = r"<\|[^|<>\s]{1,60}\|>|<｜[^｜<>\s]{1,60}｜>|<\w{1,30}_of_turn>"
MARKS = re.compile(MARK)
# Marks of a beginning or an end. A role alone ("<|user|>") is ordinary text for Zephyr, Tulu and OLMo 2, whose EOS ends
# an answer, and so is "[INST]" for Mistral 7B.
FRAME = re.compile(r"<\W?(?:\w*[_▁])?(?:start|begin|end|eo[mst]|bos|turn)", re.IGNORECASE)
END = re.compile(rf"\s*({MARK}|</s>|<eos>)")
SHOWN = 4


def conversations(render: Render) -> Iterator[str]:
    """Yield rendered conversations with the answer `PROBE`, in the roles of the template."""
    system, user = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}
    answered = [user, {"role": "assistant", "content": PROBE}]
    for messages in (answered, [*answered, user], [system, *answered]):
        try:
            yield render([{"role": message["role"], "content": message["content"]} for message in messages])
        except DataError:  # the template has no such role
            continue


def missing_marks(tokenizer: Any, texts: Iterable[str], *, ends_turn: bool) -> list[str]:
    """Return the marks around turns in rendered conversations that are not tokens of the tokenizer.

    Args:
        tokenizer: has the vocabulary.
        texts: conversations with the answer `PROBE`.
        ends_turn: whether a token ends the answer; if not, the mark after it must.
    """
    found: dict[str, None] = {}
    for text in texts:
        found |= dict.fromkeys(mark for mark in MARKS.findall(text) if FRAME.match(mark))
        end = None if ends_turn else END.match(after_answer(text))
        found |= {end[1]: None} if end else {}
    return [mark for mark in found if not _is_token(tokenizer, mark)]


def require_marks(tokenizer: Any, texts: Iterable[str], *, ends_turn: bool) -> None:
    """Reject a chat template with marks that the tokenizer lacks.

    Raises: ModelError with the marks.
    """
    missing = missing_marks(tokenizer, texts, ends_turn=ends_turn)
    if missing:
        pieces = tokenizer.convert_ids_to_tokens(tokenizer(missing[0], add_special_tokens=False)["input_ids"])
        named = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        raise ModelError(
            f"the chat template writes {named}, which the tokenizer {tokenizer.name_or_path} has no token for and "
            f"splits into ordinary ones ({' '.join(pieces[:8])}). Use the model's own template, or chat_template: "
            "plain, which needs no tokens of its own; or add and train them in stage sft, with "
            f"add_tokens: {missing}."
        )


def _is_token(tokenizer: Any, mark: str) -> bool:
    ids = tokenizer(mark, add_special_tokens=False, verbose=False)["input_ids"]
    return mark in tokenizer.convert_ids_to_tokens(ids)
