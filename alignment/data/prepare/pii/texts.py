"""Texts as recognisers read them: the same length, with plain digits and marks, and in windows of limited length."""

import re
from collections.abc import Iterator

WINDOW = 50_000  # characters that are analysed at once
SHARED = 1_000  # characters that two windows share; longer personal data may be found in parts only

# Patterns find words by `\b`, which does not separate letters of these scripts, written without spaces, from digits.
_UNSPACED = re.compile("[\u2e80-\u2fff\u3001-\u9fff\uac00-\ud7af\uf900-\ufaff\uff01-\uffdf\U00020000-\U0003ffff]")
_SEPARATOR = "\x00"
YEAR_MARK, MONTH_MARK, DAY_MARK = "\x01", "\x02", "\x03"  # stand for 年, 月, and 日 or 号, which end words too
_MARKS = {"年": YEAR_MARK, "月": MONTH_MARK, "日": DAY_MARK, "号": DAY_MARK}
_FULL_WIDTH = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz@.-+_"  # other marks end what is found
_PLAIN = {ord(each) + 0xFEE0: ord(each) for each in _FULL_WIDTH}
_PLAIN |= dict.fromkeys([0x00A0, 0x2007, 0x2009, 0x202F, 0x3000], ord(" "))
_PLAIN |= dict.fromkeys([0x2010, 0x2011, 0x2012, 0x2013, 0x2212], ord("-"))


def plain(text: str) -> str:
    """Return a text of the same length with ASCII for full-width letters, digits and marks, and for hyphens."""
    return text if text.isascii() else text.translate(_PLAIN)


def separated(text: str) -> str:
    """Return a text of the same length in which Chinese, Japanese and Korean characters end words.

    Args:
        text: as `plain` returns it.
    """
    if text.isascii():
        return text
    return _UNSPACED.sub(lambda match: _MARKS.get(match[0], _SEPARATOR), text)


def windows(text: str, length: int = WINDOW, shared: int = SHARED) -> Iterator[tuple[int, str]]:
    """Yield overlapping pieces of a text with their offsets; they begin and end at white space where there is some.

    Args:
        length: most characters of a piece. shared: characters that two pieces share.
    """
    start = 0
    while len(text) - start > length:
        end = _blank_before(text, start + length, shared)
        yield start, text[start:end]
        start = _blank_before(text, end - shared, shared)
    yield start, text[start:]


def _blank_before(text: str, place: int, most: int) -> int:
    """Return the place behind the last white space in the `most` characters before a place; without one, the place."""
    return next((at for at in range(place, max(place - most, 1), -1) if text[at - 1].isspace()), place)
