"""Text of messages that spells a control token stays text, as with transformers' `sanitize_control_tokens`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from alignment.errors import DataError

# Tokens by which a model marks its own reasoning and tool calls: in a message of the assistant they stay tokens.
_OWN = re.compile(r"think|thought|reason|tool.?calls?|call|function|python|channel|constrain", re.IGNORECASE)
_FOREIGN = re.compile(r"response|result|output", re.IGNORECASE)
_FIRST_STAND_IN = 0xF0000  # private use: no tokenizer's vocabulary gives these characters a meaning
_STAND_INS = "\U000f0000-\U000ffffd"
_ANCHOR = "\n"  # before a text, to get its tokens without the space that some tokenizers prepend


class ControlTokens:
    """The control tokens of a tokenizer: those that are special, and added ones that the chat template writes.

    A message's text is given to the template with a stand-in for each control token that it spells, and the stand-in
    is tokenised as the text it stands for.
    """

    def __init__(self, tokenizer: Any, chat_template: str) -> None:
        """Collect the tokens; `chat_template` is Jinja text."""
        self._tokenizer = tokenizer
        added = list(tokenizer.added_tokens_decoder.values())
        texts = {token.content for token in added if token.special or token.content in chat_template}
        texts |= set(tokenizer.all_special_tokens)
        self.texts = sorted((text for text in texts if text.strip()), key=len, reverse=True)
        foreign = [text for text in self.texts if not _OWN.search(text) or _FOREIGN.search(text)]
        self._any, self._foreign = _pattern(self.texts), _pattern(foreign)
        self._first = re.compile(rf"\s*(?:{self._any.pattern})")
        starts = sorted({re.escape(text[:2]) for text in self.texts})
        self._quick = re.compile("|".join([*starts, f"[{_STAND_INS}]"]))
        plain = [token.content for token in added if token.special and not (token.lstrip or token.rstrip)]
        self._divider = next((text for text in plain if text.strip()), None)
        self._plain_ids: dict[str, list[int]] = {}

    def hide(self, value: Any, hidden: dict[str, str], *, own: bool = False) -> Any:
        """Return text, or lists and objects of text, with a stand-in for each control token that it spells.

        Args:
            hidden: stand-in → text; extended here.
            own: the text is the assistant's, where tokens of reasoning and of tool calls are meant as tokens.
        """
        if isinstance(value, str):
            if not self._quick.search(value):
                return value
            pattern = self._foreign if own else self._any
            return pattern.sub(lambda found: _stand_in(found[0], hidden), value)
        if isinstance(value, Mapping):
            return {key: self.hide(part, hidden, own=own) for key, part in value.items()}
        if isinstance(value, list):
            return [self.hide(part, hidden, own=own) for part in value]
        return value

    def is_bare(self, text: str) -> bool:
        """Whether a text, or one with stand-ins, spells control tokens and holds nothing else but white space."""
        return self._first.match(text) is not None and not self._any.sub("", text).strip()

    def ids(self, text: str, hidden: Mapping[str, str]) -> list[int]:
        """Tokenise a rendered text, each stand-in as the text it stands for.

        A special token divides the text where a stand-in is, so that neighbours do not merge with it; its ids are
        then replaced.
        """
        stand_ins = re.findall("[" + "".join(hidden) + "]", text) if hidden else []
        if not stand_ins:
            return self._encode(text)
        divider = self._divider
        if divider is None:
            raise self._cannot(hidden[stand_ins[0]])
        pieces = re.split(f"({re.escape(divider)}|[{''.join(hidden)}])", text)
        kinds = [piece for piece in pieces if piece == divider or piece in hidden]
        ids = self._encode("".join(divider if piece in hidden else piece for piece in pieces))
        mark = self._tokenizer.convert_tokens_to_ids(divider)
        if ids.count(mark) != len(kinds):
            raise self._cannot(hidden[stand_ins[0]])
        kind = iter(kinds)
        return [
            token
            for found in ids
            for token in (self._as_text(hidden.get(next(kind), "")) or [mark] if found == mark else [found])
        ]

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _as_text(self, literal: str) -> list[int]:
        """Return the ids of a control token's spelling, none of which is that token."""
        if literal and literal not in self._plain_ids:
            before, ids = self._without_added_tokens(_ANCHOR), self._without_added_tokens(_ANCHOR + literal)
            ids = ids[len(before) :] if ids[: len(before)] == before else self._without_added_tokens(literal)
            if not ids or (literal in self.texts and self._tokenizer.convert_tokens_to_ids(literal) in ids):
                raise self._cannot(literal)
            self._plain_ids[literal] = ids
        return self._plain_ids.get(literal, [])

    def _without_added_tokens(self, text: str) -> list[int]:
        if not self._tokenizer.is_fast:
            return list(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        core = self._tokenizer.backend_tokenizer
        text = core.normalizer.normalize_str(text) if core.normalizer is not None else text
        parts = [part for part, _ in core.pre_tokenizer.pre_tokenize_str(text)] if core.pre_tokenizer else [text]
        return [token.id for part in parts for token in core.model.tokenize(part)]

    def _cannot(self, literal: str) -> DataError:
        return DataError(
            f"a message spells the control token {literal!r}, and this tokenizer cannot write it as text; take it out "
            "of the message."
        )


def _pattern(texts: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join([*map(re.escape, texts), f"[{_STAND_INS}]"]))


def _stand_in(text: str, hidden: dict[str, str]) -> str:
    """Return the stand-in of a text, a new one if it has none."""
    for stand_in, known in hidden.items():
        if known == text:
            return stand_in
    stand_in = chr(_FIRST_STAND_IN + len(hidden))
    hidden[stand_in] = text
    return stand_in
