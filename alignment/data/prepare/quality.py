"""Rules of repetition and symbols of Gopher and C4; `alignment/config/schema/steps/quality.py` has their thresholds.

Words are parted by white space, and characters are counted without it, so that the measures do not depend on it.
Measures of words do not fit languages that write none, such as Chinese.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property

from alignment.config.schema.steps.quality import RULES, QualityEntry
from alignment.data.prepare.step import ROLES, Drop, Outcome, Row, Step

STOP_WORDS = frozenset("the be to of and that have with".split())
BULLETS = ("•", "‣", "▪", "◦", "●", "-", "*", "–")
ELLIPSES = ("...", "…")
TERMINAL = (".", "!", "?", '"', "”", "。", "！", "？")
_SENTENCE_END = re.compile(r"[.!?。！？]+[\"”')\]]*(\s|$)")
_PARAGRAPHS = re.compile(r"\n\s*\n")


class Measured:
    """The parts of one text that measures count."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def words(self) -> list[str]:
        """Words, parted by white space."""
        return self.text.split()

    @cached_property
    def characters(self) -> int:
        """Characters of all words."""
        return sum(map(len, self.words))

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank."""
        return [line.strip() for line in self.text.split("\n") if line.strip()]

    @cached_property
    def paragraphs(self) -> list[str]:
        """Paragraphs, parted by blank lines."""
        return [part.strip() for part in _PARAGRAPHS.split(self.text) if part.strip()]


def share(count: float, of: float) -> float:
    """Return a share; 0 of nothing."""
    return count / of if of else 0.0


def repeated(parts: Sequence[str]) -> list[str]:
    """Return the parts that repeat an earlier one."""
    seen: set[str] = set()
    return [part for part in parts if part in seen or seen.add(part)]  # type: ignore[func-returns-value]


def top_gram(text: Measured, n: int) -> float:
    """Return the share of characters in the most frequent n-gram, where it occurs more than once."""
    grams = Counter(tuple(text.words[place : place + n]) for place in range(len(text.words) - n + 1))
    if not grams:
        return 0.0
    most = max(grams.values())
    if most == 1:
        return 0.0  # of a short text every n-gram is the most frequent one
    longest = max(sum(map(len, gram)) for gram, count in grams.items() if count == most)
    return min(1.0, share(longest * most, text.characters))


def duplicate_grams(text: Measured, n: int) -> float:
    """Return the share of characters in n-grams that repeat an earlier one, no character counted twice."""
    seen: set[tuple[str, ...]] = set()
    place = found = 0
    while place <= len(text.words) - n:
        gram = tuple(text.words[place : place + n])
        if gram in seen:
            found += sum(map(len, gram))
            place += n
        else:
            seen.add(gram)
            place += 1
    return share(found, text.characters)


def _characters(parts: Sequence[str]) -> int:
    return sum(len("".join(part.split())) for part in parts)


MEASURES: dict[str, Callable[[Measured], float]] = {
    "words": lambda text: len(text.words),
    "mean_word_length": lambda text: share(text.characters, len(text.words)),
    "symbols_per_word": lambda text: share(
        max(text.text.count("#"), text.text.count("...") + text.text.count("…")), len(text.words)
    ),
    "bullet_lines": lambda text: share(sum(line.startswith(BULLETS) for line in text.lines), len(text.lines)),
    "ellipsis_lines": lambda text: share(sum(line.endswith(ELLIPSES) for line in text.lines), len(text.lines)),
    "alphabetic_words": lambda text: share(sum(any(map(str.isalpha, word)) for word in text.words), len(text.words)),
    "stop_words": lambda text: len(STOP_WORDS & {word.lower() for word in text.words}),
    "duplicate_lines": lambda text: share(len(repeated(text.lines)), len(text.lines)),
    "duplicate_paragraphs": lambda text: share(len(repeated(text.paragraphs)), len(text.paragraphs)),
    "duplicate_line_characters": lambda text: share(_characters(repeated(text.lines)), text.characters),
    "duplicate_paragraph_characters": lambda text: share(_characters(repeated(text.paragraphs)), text.characters),
    **{f"top_{n}_gram": lambda text, n=n: top_gram(text, n) for n in (2, 3, 4)},  # type: ignore[misc]
    **{f"duplicate_{n}_gram": lambda text, n=n: duplicate_grams(text, n) for n in range(5, 11)},  # type: ignore[misc]
    "sentences": lambda text: len(_SENTENCE_END.findall(text.text)),
    "terminal_lines": lambda text: share(sum(line.endswith(TERMINAL) for line in text.lines), len(text.lines)),
    "curly_brackets": lambda text: text.text.count("{") + text.text.count("}"),
    "lorem_ipsum": lambda text: text.text.lower().count("lorem ipsum"),
    "javascript_lines": lambda text: sum("javascript" in line.lower() for line in text.lines),
}


class Quality(Step):
    """Drops rows whose texts break a rule."""

    def __init__(self, entry: QualityEntry) -> None:
        self.entry, self.roles = entry, ROLES[entry.on]
        self.limits = {rule: entry.thresholds.get(rule, RULES[rule].threshold) for rule in entry.rules}

    def apply(self, row: Row) -> Outcome:
        """Drop the row at the first rule that one of its texts breaks."""
        for text in map(Measured, row.parts(self.entry.on)):
            for rule, limit in self.limits.items():
                side, _, name = rule.partition("_")
                found = MEASURES[name](text)
                if found < limit if side == "min" else found > limit:
                    return Drop(rule, f"{found:.3g} {RULES[rule].meaning}, limit {limit:g}")
        return row


def build(entry: QualityEntry, seed: int) -> Quality:
    """Return the step."""
    return Quality(entry)


def markdown() -> str:
    """Return the table of the rules, as docs/prepare.md shows it."""
    lines = ["| rule | limits | threshold | source |", "|---|---|---|---|"]
    for name, rule in RULES.items():
        address = re.sub(r"(\w+) \((\S+)\)", r"[\1](\2)", rule.source)
        pages = ", *pages*" if rule.for_pages else ""
        lines.append(f"| `{name}` | {rule.meaning}{pages} | {rule.threshold:g} | {address} |")
    return "\n".join(lines)
