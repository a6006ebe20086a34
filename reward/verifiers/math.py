r"""The reward `math`: the final answer of a text equals a reference, by math-verify.

**The final answer** is the first of these that a text has:

1. the content of the last `\boxed{…}` (MATH, https://arxiv.org/abs/2103.03874); if its brace is not closed, none;
2. what follows the last `####` on its line (GSM8K, https://arxiv.org/abs/2110.14168);
3. what math-verify finds in the last 1,000 characters: an expression after "final answer is", one after "answer", else
   the last number or LaTeX expression between `$…$`, `\(…\)` or `\[…\]`.

TRL's `accuracy_reward` and open-r1 read the answer with math-verify too, `\boxed` first. They accept LaTeX only and
skip a row whose reference they cannot parse. Here a plain number is an answer, because small models and GSM8K's
demonstrations write no LaTeX; and a reference that cannot be parsed is an error.

**Numbers with spaces** are thousands (`1 000`) or mixed numbers (`1 1/2`). Other numbers side by side (`47 85`) and
numbers with two points (`1.000.000`) are no final answers.

**Equal** is math-verify's `verify`: symbolic equality; floats rounded to six decimals; 50% equals both 1/2 and 50. So
an unevaluated sum, 47+85, equals 132.

**Time.** math-verify's own time limits use signals, which only the main thread has; they are off, and the caller limits
the time. Two bounds make most hostile answers cheap. Expressions of more than 300 characters, 16 brackets inside one
another or 150 nodes, numbers of more than 100,000 bits (9**9**9**9, 10000!) and sums, products, integrals and limits
are no final answers. Expressions that differ as numbers are unequal without a symbolic proof. A symbolic proof, or the
solution of two equations, can still take long.
"""

import logging
import re
from functools import cache, lru_cache
from typing import Any

from alignment.errors import ScorerError
from alignment.strict_json import shown
from reward.verifiers.extras import require
from reward.verifiers.math_bounds import is_bounded, same_as_numbers
from reward.verifiers.math_numbers import has_numbers_side_by_side, join_thousands, mixed_number

_TAIL = 1_000  # characters at the end of an answer in which math-verify looks for one without a mark
_LONGEST = 300  # characters of a final answer
_DEEPEST = 16  # brackets inside one another; the time of parsing doubles with a few more
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_CURRENCY = r"\\?[$€£¥₹]"
_NUMBER = re.compile(
    rf"(?P<sign>[-+−]?)\s*(?:{_CURRENCY})?\s*(?P<sign2>[-−]?)(?P<digits>\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?:[eE](?P<power>[-+]?\d{1,3}))?\s*"
    r"(?:(?P<percent>\\?%|percent\b)|(?:[^\W\d_]{2,}(?:[ /]+[^\W\d_]+)*))?"  # a unit: one word or more
)
_BOLD = re.compile(r"(?<![\w)}])\*\*([^*\n]+)\*\*")  # not the powers of 2**3**4
_SENTENCE = re.compile(r"[^\W\d_]{2,}\s+[^\W\d_]{2,}")
_WORDS = re.compile(r"[^\W\d_]{3,}(?:[ -][^\W\d_]+)*")
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))


def is_correct(answer: str, reference: str) -> bool:
    r"""Return whether the final answer of a text equals a reference.

    Args:
        reference: a number, perhaps with currency, commas and unit; LaTeX, perhaps in `$…$`; or a text whose last
            `\boxed{…}`, or else what follows `####`, is one.

    Raises: ScorerError if the reference cannot be parsed, or math-verify is not installed.
    """
    wanted = parse_reference(reference)
    found = _final_answer(answer)
    if found is None:
        return False
    if same_as_numbers(wanted, found) is False:
        return False
    return bool(_math_verify().verify([wanted], [found], timeout_seconds=None))


@lru_cache(maxsize=4096)
def parse_reference(reference: str) -> Any:
    """Return the SymPy expression of a reference.

    Raises: ScorerError if it cannot be parsed.
    """
    marked = _marked(reference)
    expression = _parse(reference if marked is None else marked)
    if expression is None:
        raise ScorerError(
            f"math reference {shown(reference)} cannot be parsed; give a number, LaTeX, \\boxed{{…}} or '#### 42'."
        )
    return expression


def _final_answer(answer: str) -> Any:
    marked = _marked(answer)
    if marked is not None:
        return _parse(marked)
    tail = answer[-_TAIL:]
    if len(tail) < len(answer):
        tail = tail.partition(" ")[2]  # without the rest of a number
    tail = _BOLD.sub(r"\1", tail)
    if _NUMBER.fullmatch(_bare(join_thousands(tail))):
        return _parse(tail)
    expression, text = _extracted(tail)
    return _parse(text) if has_numbers_side_by_side(text) else expression


def _marked(text: str) -> str | None:
    r"""Return what the last `\boxed` or, without one, the last `####` marks; None if neither is there."""
    boxes = list(_BOXED.finditer(text))
    if boxes:
        return _until_closed(text, boxes[-1].end())
    _, mark, after = text.rpartition("####")
    return _BOLD.sub(r"\1", after.strip().partition("\n")[0]) if mark else None


def _until_closed(text: str, start: int) -> str:
    """Return the text from `start` to the brace that closes the one before; empty if there is none."""
    depth = 1
    for brace in _BRACE.finditer(text, start, start + _LONGEST + 1):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[start : brace.start()]
    return ""


def _parse(text: str) -> Any:
    """Return the expression that a whole text is; None if it is none."""
    text = _bare(text)
    if not text or len(text) > _LONGEST:
        return None
    text = join_thousands(text.replace(r"\!", "").replace("{,}", ","))
    mixed = mixed_number(text)
    if mixed is None and has_numbers_side_by_side(text):
        return None
    number = _NUMBER.fullmatch(text.replace(r"\,", ""))
    if mixed is not None:
        text = mixed
    elif number:
        sign = "-" if number["sign"] in ("-", "−") or number["sign2"] else ""
        power = f" \\cdot 10^{{{number['power']}}}" if number["power"] else ""
        text = f"{sign}{number['digits'].replace(',', '')}{power}{'%' if number['percent'] else ''}"
    elif _WORDS.fullmatch(text):
        text = rf"\text{{{text}}}"  # otherwise the product of its letters
    elif "\\" not in text and _SENTENCE.search(text):
        return None
    return _extracted(rf"\boxed{{{text}}}")[0]


def _bare(text: str) -> str:
    """Return a text without white space, delimiters and full stop around it."""
    text = text.strip().replace("−", "-")
    text = text.removesuffix(".").rstrip()
    for opening, closing in _DELIMITERS:
        if len(text) > len(opening + closing) and text.startswith(opening) and text.endswith(closing):
            return text[len(opening) : -len(closing)].strip()
    return text


def _extracted(text: str) -> tuple[Any, str]:
    """Return the first expression that math-verify extracts, and the text that it read.

    The expression is None if there is none or it breaks a bound; the text is empty if nothing looks like one.
    """
    if _depth(text) > _DEEPEST:
        return None, ""
    package = _math_verify()
    config = [package.LatexExtractionConfig(boxed_match_priority=0), package.ExprExtractionConfig()]
    found = package.parse(
        text, config, fallback_mode="first_match", extraction_mode="first_match", parsing_timeout=None
    )
    if not found:
        return None, ""
    *expressions, read = found  # without an expression, the text alone
    return (expressions[0] if expressions and is_bounded(expressions[0]) else None), read


def _depth(text: str) -> int:
    """Return the largest number of brackets inside one another."""
    depth = deepest = 0
    for character in text:
        depth = max(0, depth + (character in "([{") - (character in ")]}"))
        deepest = max(deepest, depth)
    return deepest


@cache
def _math_verify() -> Any:
    package = require("math_verify", "math")
    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they warn that their time limits are off
    return package
