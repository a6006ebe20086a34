"""From tokens to text: runs of trained and untrained tokens, which joined are the decoded row."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.preview.rows import Tokens


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that is shown in one way."""

    text: str
    trained: bool
    special: bool = False  # one control token
    stop: bool = False  # a control token that ends an answer
    cut: bool = False


def segments(tokenizer: Any, tokens: Tokens) -> list[dict[str, Any]]:
    """Return runs of tokens with the same mask, `{"text", "trained"}`; joined they are `tokenizer.decode(ids)`."""
    runs = [(mask, len(list(run))) for mask, run in itertools.groupby(tokens.trained)]
    ends = list(itertools.accumulate(length for _, length in runs))
    texts = texts_between(tokenizer, tokens.ids, ends)
    return [{"text": text, "trained": mask} for text, (mask, _) in zip(texts, runs, strict=True)]


def pieces(tokenizer: Any, tokens: Tokens, stops: Sequence[int]) -> list[Piece]:
    """Return a sequence for a person: control tokens apart from text, and what is cut at its end."""
    control = control_ids(tokenizer) | set(stops)
    ids, kept = [*tokens.ids, *tokens.cut], len(tokens.ids)
    kinds = [
        (token in control and place + 1, place < kept and tokens.trained[place], place >= kept)
        for place, token in enumerate(ids)
    ]
    groups = [(kind, len(list(run))) for kind, run in itertools.groupby(kinds)]
    ends = list(itertools.accumulate(length for _, length in groups))
    texts = texts_between(tokenizer, ids, ends)
    return [
        Piece(text, trained, bool(special), bool(special) and ids[end - 1] in stops, cut)
        for text, end, ((special, trained, cut), _) in zip(texts, ends, groups, strict=True)
    ]


def texts_between(tokenizer: Any, ids: Sequence[int], ends: Sequence[int]) -> Iterator[str]:
    """Yield the text of each run of tokens, the runs ending at `ends`.

    Each text is the difference of two decoded beginnings, so that the spaces and the characters of several tokens are
    those of the whole. A character with bytes on both sides of an end belongs to the later run.
    """
    whole = str(tokenizer.decode(list(ids)))
    begin = 0
    for end in ends:
        stop = len(whole) if end == len(ids) else max(begin, _common(str(tokenizer.decode(list(ids[:end]))), whole))
        yield whole[begin:stop]
        begin = stop


def parted(found: Sequence[Sequence[Piece]]) -> tuple[list[Piece], list[list[Piece]]]:
    """Part the prompt that several sequences begin with from the rest of each; of one sequence nothing is parted."""
    prompts = [list(itertools.takewhile(lambda piece: not piece.trained, one)) for one in found]
    if len(found) < 2 or any(prompt != prompts[0] for prompt in prompts):
        return [], [list(one) for one in found]
    return prompts[0], [list(one[len(prompts[0]) :]) for one in found]


def control_ids(tokenizer: Any) -> set[int]:
    """Return the ids of special tokens and of tokens that were added to the vocabulary."""
    return {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}


def _common(beginning: str, whole: str) -> int:
    if whole.startswith(beginning):
        return len(beginning)
    return next((n for n, (a, b) in enumerate(zip(beginning, whole, strict=False)) if a != b), len(whole))
