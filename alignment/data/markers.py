"""The marks by which a chat template frames turns: each must be one token, or it is split into ordinary ones."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from alignment.data.stops import PROBE, Render, after_answer
from alignment.errors import DataError, ModelError

MARK = r"<\|[^|<>\s]{1,60}\|>|<｜[^｜<>\s]{1,60}｜>|<\w{1,30}_of_turn>"
MARKS = re.compile(MARK)
# Marks that begin or end something. A bare role's ("<|user|>") is ordinary text to Zephyr, Tulu and OLMo 2, whose EOS
# ends an answer, and so is "[INST]" to Mistral 7B.
FRAME = re.compile(r"<\W?(?:\w*[_▁])?(?:start|begin|end|eo[mst]|bos|turn)", re.IGNORECASE)
END = re.compile(rf"\s*({MARK}|</s>|<eos>)")
SHOWN = 4


def conversations(render: Render) -> Iterator[str]:
    """Yield rendered conversations with the answer `PROBE`, of the roles that the template has."""
    system, user = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}
    answered = [user, {"role": "assistant", "content": PROBE}]
    for messages in (answered, [*answered, user], [system, *answered]):
        try:
            yield render([{"role": message["role"], "content": message["content"]} for message in messages])
        except DataError:  # the template has no such role
            continue


def missing_marks(tokenizer: Any, texts: Iterable[str], *, ends_turn: bool) -> list[str]:
    """Return the marks that begin or end turns in rendered conversations and are no tokens of the tokenizer.

    Args:
        tokenizer: whose vocabulary counts.
        texts: conversations with the answer `PROBE`.
        ends_turn: whether a token ends the answer; where none does, the mark behind it would have to.
    """
    found: dict[str, None] = {}
    for text in texts:
        found |= dict.fromkeys(mark for mark in MARKS.findall(text) if FRAME.match(mark))
        end = None if ends_turn else END.match(after_answer(text))
        found |= {end[1]: None} if end else {}
    return [mark for mark in found if not _is_token(tokenizer, mark)]


def require_marks(tokenizer: Any, texts: Iterable[str], *, ends_turn: bool) -> None:
    """Refuse a chat template whose marks the tokenizer lacks.

    Raises: ModelError naming them.
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
