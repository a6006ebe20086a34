r"""Characters, words and sentences of a text.

Words are runs of `\w`, as in IFEval's `count_words`: "don't" is two words, "3.5" is two.

Sentences approximate NLTK's Punkt, which IFEval uses, without its trained model. A sentence ends at `.`, `!`, `?`, `…`
or their equivalents in other scripts, before white space or the end of the text. A line break alone does not end it.
Differences from Punkt:

- Abbreviations come from the short lists below; Punkt learns them from text. "U.S." and an initial end no sentence.
- The number or letter of a list item ("1.") is no sentence of its own; in Punkt it is one.
- The end marks of Chinese, Japanese, Hindi, Arabic and Urdu count; Punkt's English model does not know them.
- A stretch without any letter or digit is no sentence.
"""

import re
from collections.abc import Callable
from typing import Literal

Unit = Literal["characters", "words", "sentences"]
_WORD = re.compile(r"\w+")
_CLOSERS = r"""["'”’»)\]*_」』）]*"""
_END = re.compile(rf"(?P<mark>[.!?…؟۔।॥]+){_CLOSERS}(?=\s|$)|[。！？]+{_CLOSERS}")
_TOKEN_BEFORE = re.compile(r"\S*\Z")
# These never end a sentence.
_TITLES = frozenset("mr mrs ms dr prof st mt gen col sgt capt lt rev hon sen rep gov e.g i.e vs cf viz fig eq".split())
# These end a sentence before a capital letter only.
_ABBREVIATIONS = frozenset("etc inc ltd co corp jr sr a.m p.m ph.d approx no dept est al".split())
_ACRONYM = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")  # "J", "U.S": what stands before the last full stop
_LONGEST_TOKEN = 40  # characters before a full stop that can be an abbreviation
_LONGEST_GAP = 40  # characters of white space after a mark that are looked through for the next sentence


def count_words(text: str) -> int:
    """Return the number of words."""
    return len(_WORD.findall(text))


def count_sentences(text: str) -> int:
    """Return the number of sentences."""
    count, start = 0, 0
    for end in _END.finditer(text):
        if _ends_sentence(text, end):
            count += _has_word(text, start, end.end())
            start = end.end()
    return count + _has_word(text, start, len(text))


COUNTERS: dict[Unit, Callable[[str], int]] = {
    "characters": len,
    "words": count_words,
    "sentences": count_sentences,
}


def _has_word(text: str, start: int, end: int) -> bool:
    return _WORD.search(text, start, end) is not None


def _ends_sentence(text: str, end: re.Match[str]) -> bool:
    mark, following = end["mark"], text[end.end() : end.end() + _LONGEST_GAP].lstrip()[:1]
    if mark is None or not following:
        return True
    if mark == "…" or mark.startswith(".."):
        return not following.islower()
    if mark != ".":
        return True
    before = text[max(0, end.start() - _LONGEST_TOKEN) : end.start()]
    token = _TOKEN_BEFORE.search(before)[0].lstrip("\"'“‘«([*_").lower()  # type: ignore[index]  # matches always
    if _is_list_marker(before, token) or token in _TITLES:
        return False
    if token in _ABBREVIATIONS:
        return not following.islower()
    return _ACRONYM.fullmatch(token) is None or token == "i"


def _is_list_marker(before: str, token: str) -> bool:
    """Return whether a token is alone on its line, as "1" in "1. Wash the cup"."""
    line = before.rsplit("\n", 1)[-1].strip("*_ \t")
    return line.lower() == token and (token.isdigit() or len(token) == 1)
