"""Which tokens end an answer: chat template, tokenizer, generation config and recipe, reconciled once.

Training, sampling, evaluation, judges, merging and the saved generation config all take what `Stops` holds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from alignment.data.calls import call_message
from alignment.data.rows import Message
from alignment.errors import DataError, ModelError

PROBE, NEXT = "PROBE", "PROBED"
Render = Callable[[list[Message]], str]


@dataclass(frozen=True, slots=True)
class Stops:
    """The tokens that end an answer."""

    eos: int  # ends an answer to plain text
    turn_end: int | None  # ends an answer to messages; None if the chat template writes no such token: `eos` does
    ids: list[int]  # each of these ends an answer: what training teaches first, then what else the model stops at


def eos_id(tokenizer: Any, eos_token: str | None) -> int:
    """Return the token that ends an answer to plain text: the recipe's `eos_token`, else the tokenizer's EOS.

    Raises: ModelError if there is none.
    """
    if eos_token is not None:
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        if eos_token not in vocabulary:
            raise ModelError(f"eos_token {eos_token!r} is not a token of the tokenizer {tokenizer.name_or_path}.")
        return vocabulary[eos_token]
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer {tokenizer.name_or_path} has no EOS token, so an answer could never end. Name the token "
            "that ends an answer in the recipe with eos_token."
        )
    return int(tokenizer.eos_token_id)


def reconcile(tokenizer: Any, eos: int, render: Render | None, generation_config: Any = None) -> Stops:
    """Find all tokens that end an answer.

    A turn that calls a tool may end in a token of its own (harmony's `<|call|>`).

    A chat template that writes no token after an answer ends it with the marker of the next role (GLM): what it
    writes before a user's turn is taught, and a tool's marker stops too.

    Args:
        tokenizer: its EOS stops, and what `load_tokenizer` noted of the model in `generation_stop_ids`.
        eos: from `eos_id`.
        render: writes messages by the chat template, without the header of an answer to come; None: there is none.
        generation_config: whose `eos_token_id`, a number or a list, stop too.
    """
    turns = list(_turn_ends(tokenizer, eos, render)) if render is not None else []
    calls = _call_end(tokenizer, {*turns, eos}, render) if render is not None else None
    more = getattr(generation_config, "eos_token_id", None)
    more = [*(more if isinstance(more, list) else [more]), *getattr(tokenizer, "generation_stop_ids", ())]
    special = _marks(tokenizer, eos)
    # An ordinary token, as a configuration made for another tokenizer names it, occurs within answers.
    stops = [*turns[:1], eos, *turns[1:], calls, tokenizer.eos_token_id, *(token for token in more if token in special)]
    ids = list(dict.fromkeys(stop for stop in stops if stop is not None))
    return Stops(eos=eos, turn_end=turns[0] if turns else None, ids=ids)


def _turn_ends(tokenizer: Any, eos: int, render: Render) -> Iterator[int]:
    """Yield the token that ends a turn, then others that do."""
    marks = _marks(tokenizer, eos)
    answered: list[Message] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": PROBE}]
    end = _first(tokenizer, after_answer(render(answered)), marks)
    if end is not None:
        yield end
        return
    begins = marks - {tokenizer.bos_token_id} | {eos}
    for role in ("user", "tool"):
        try:
            text = render([*answered, {"role": role, "content": NEXT}])
        except DataError:  # the template has no such role
            continue
        marker = _first(tokenizer, after_answer(text), begins)
        if marker is not None:
            yield marker


def _call_end(tokenizer: Any, stops: set[int], render: Render) -> int | None:
    """Return the special token with which a turn that calls a tool ends, where none of `stops` ends it (harmony)."""
    call = call_message("", [{"type": "function", "function": {"name": "f", "arguments": {"a": PROBE}}}])
    asked: Message = {"role": "user", "content": "Hi"}
    try:
        text = render([asked, call])
    except DataError:  # the template takes no calls
        return None
    if PROBE not in text:
        return None
    ids = tokenizer(text.rpartition(PROBE)[2].rstrip(), add_special_tokens=False, verbose=False)["input_ids"]
    if not ids or stops & set(ids):
        return None
    word = tokenizer.added_tokens_decoder.get(ids[-1])
    return int(ids[-1]) if word is not None and word.special else None


def after_answer(text: str) -> str:
    """Return what a rendered conversation holds between the answer `PROBE` and the turn after it."""
    before_next = text.rpartition(NEXT)[0] or text
    return before_next.rpartition(PROBE)[2] if PROBE in before_next else ""


def _first(tokenizer: Any, text: str, wanted: set[int]) -> int | None:
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return next((token for token in ids if token in wanted), None)


def _marks(tokenizer: Any, eos: int) -> set[int]:
    """Return the tokens that are marks of a format: special ones, and words that were added to the vocabulary."""
    added = {token for token, word in tokenizer.added_tokens_decoder.items() if word.special or word.content.strip()}
    return {*tokenizer.all_special_ids, *added, eos}
