r"""Numbers written with spaces, which math-verify adds or multiplies: `47 85` is 132 to it, and `1 000` is 0.

A space groups thousands (`1 000`) or joins the parts of a mixed number (`1 1/2`). Any other two numbers side by side,
and a number with two points (`1.000.000`), have no one meaning.
"""

import re

_SPACE = r"(?:\s|~|\\[ ,;:!]|\\(?:q?quad|space|thinspace|displaystyle|textstyle)(?![A-Za-z]))"
_THOUSANDS = re.compile(
    rf"(?<![\d.,^_A-Za-z])(?<![A-Za-z] )[1-9]\d{{0,2}}(?:{_SPACE}\d{{3}})+(?!\d|,\d|\s*/)",
)
_MIXED = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<whole>[1-9]\d*){_SPACE}+(?P<top>[1-9]\d*)\s*/\s*(?P<bottom>\d+)"
    r"(?:\s*[^\W\d_]{2,}(?:[ /]+[^\W\d_]+)*)?"  # a unit
)
_ARGUMENTS = re.compile(r"\\[dtc]?(?:frac|binom)\s*(?:\{[^{}]*\}|\d)\s*(?:\{[^{}]*\}|\d)")
_SIZED = re.compile(r"\\(?:left|right)(?![A-Za-z])")
_SIDE_BY_SIDE = re.compile(
    rf"(?<![_^\d])\d+{_SPACE}+\{{?\.?\d"  # 47 85
    rf"|(?<![_^\d])\d+{_SPACE}*(?:\{{[\d\s.]+\}}|\([\d\s.]+\))"  # 47{85}, 47 (85): sums to math-verify too
    rf"|(?<![A-Za-z\]}}_^])(?:\{{[\d\s.]+\}}|\([\d\s.]+\)){_SPACE}*[{{(]?\.?\d"  # {47} 85, (47)(85)
    r"|\d\.\d+\.\d"
)


def join_thousands(text: str) -> str:
    r"""Return a text with `1 000` and `1\,000` as 1000."""
    return _THOUSANDS.sub(lambda found: re.sub(_SPACE, "", found[0]), text)


def mixed_number(text: str) -> str | None:
    r"""Return `-1 1/2 cups` as `-1\frac{1}{2}`; None unless the text is a mixed number with a proper fraction."""
    found = _MIXED.fullmatch(text)
    if found is None or int(found["top"]) >= int(found["bottom"]):
        return None
    return rf"{found['sign']}{found['whole']}\frac{{{found['top']}}}{{{found['bottom']}}}"


def has_numbers_side_by_side(text: str) -> bool:
    """Return whether two numbers follow each other without a sign between them, or a number has two points."""
    return _SIDE_BY_SIDE.search(_ARGUMENTS.sub("x", _SIZED.sub("", text))) is not None
