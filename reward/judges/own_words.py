"""Which words of a reply are the judge's own, and which it quotes from what it was shown.

A judge is asked to end with a verdict of a given form. What it writes before may quote the answers, forged verdicts
among them, so a verdict counts where it ends the reply and nothing shows that it is quoted. It is quoted where it
stands in quotation marks, a block quote, a list, a table, a code block or unfinished reasoning, behind a line that
introduces somebody's words, or behind the same words as in a text that was shown.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

BLANK = " \t\r\f\v\xa0\u2028\u2029\x85"
# What may open a sentence that gives a verdict: "So", "In conclusion, my final", "Therefore, the better".
OPENER = (
    r"(?:(?:and so|so|thus|hence|therefore|overall|finally|in conclusion|in summary|in short|to conclude|all in all"
    r"|conclusion|(?:based on|given) (?:this|these|the above)[\w ]{0,40})(?:\s*[,:])?\s+)?"
    r"(?:i (?:conclude|find|decide|judge|think|believe)(?: that)?\s+|here is\s+|this is\s+)?"
    r"(?:(?:the|my|our)\s+)?"
)
QUALIFIER = r"(?:(?:final|overall|own|better|best|preferred|winning|chosen|correct|superior)\s+)"
JOIN = r"\s*(?:\b(?:is|would be)\b|:|=|→|->|=>|-|–|—)[\s:]*"
# Brackets around the value itself: "[[B]]", "(B)", "\boxed{B}", "$\boxed{\text{B}}$", "'B'".
OPEN = r"\s*(?:\\\(|\\\[|\$+)?\s*(?:\\boxed\s*\{\s*)?(?:\\(?:text|textbf|mathrm|mathbf)\s*\{\s*)?[\[({]{0,2}\s*"
CLOSE = r"\s*[\])}]{0,4}\s*(?:\\\)|\\\]|\$+)?\s*[.!]*\s*"
PAIRED = (("“", "”"), ("«", "»"))
QUOTATION = "\"'“‘«"
MARKER = re.compile(r"\s*(?:>|\||[-+•◦‣]\s|\*\s|\d{1,3}[.)]\s+\S|[a-z][.)]\s+\S)")  # of a block quote, table or list
ATTRIBUTION = re.compile(
    r"\b(?:answers?|outputs?|responses?|options?|assistants?|candidates?|users?|requests?|prompts?|texts?|writers?"
    r"|authors?|it|says?|said|claims?|claimed|states?|stated|writes?|wrote|reads?|quotes?|quoted|contains?|ends?)\b",
    re.IGNORECASE,
)
SENTENCE = re.compile(r"(?<=[.!?;])[\"')\]]*\s+|\s[-–—]\s+|,\s*(?=(?:and so|so|thus|hence|therefore)\b)", re.IGNORECASE)
TILDES = re.compile(r"^[ \t]*~{3,}", re.MULTILINE)
TAG = re.compile(r"<(/?)(?:request|critique|answer(?:-[A-Z])?)-[0-9a-f]{12}>")
SAME_WORDS = 12  # characters that a verdict and a text that was shown have before it in common: it is a quotation
COMPARED = 200  # characters that are looked at for that


@dataclass(frozen=True, slots=True)
class Form:
    """How a value is given: alone in a line, or at the end of a sentence."""

    line: re.Pattern[str]
    sentence: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a reply that is not blank, without the marks that decorate it, and with single spaces."""

    text: str
    places: tuple[int, ...]  # in the reply, of each of the text's characters
    written: str

    @classmethod
    def of(cls, written: str, start: int) -> "Line":
        """Take marks of emphasis, headings and code out."""
        bare = re.sub(r"^\s{0,3}#{1,6}(?=\s)", lambda match: " " * len(match[0]), written)
        kept: list[tuple[str, int]] = []
        for place, character in enumerate(bare):
            if character in BLANK:
                character = " "
            if character in "*_`" or (character == " " and (not kept or kept[-1][0] == " ")):
                continue
            kept.append((character, start + place))
        if kept and kept[-1][0] == " ":
            kept.pop()
        return cls("".join(character for character, _ in kept), tuple(place for _, place in kept), written)


@dataclass(frozen=True, slots=True)
class Value:
    """A value of a form, found in a reply."""

    match: re.Match[str]
    line: Line
    begins: int  # in the line, of the sentence that gives it

    def place(self, group: str | int) -> int:
        """Return where a group begins in the reply."""
        return self.line.places[self.match.start(group)]

    @property
    def sentence(self) -> str:
        """What gives the value, from its first word on."""
        return self.line.text[self.begins :]


def lines_of(reply: str) -> list[Line]:
    r"""Return the lines that are not blank; a line ends at "\n" alone."""
    lines, start = [], 0
    for written in reply.split("\n"):
        line = Line.of(written, start)
        if line.text:
            lines.append(line)
        start += len(written) + 1
    return lines


def unfenced(reply: str) -> str:
    """Return a reply that is one code block without its fences, which become blanks, so that places stay."""
    match = re.fullmatch(r"(\s*```[a-z]*[ \t]*\n)([^`]*)(\n[ \t]*```\s*)", reply)
    return " " * len(match[1]) + match[2] + " " * len(match[3]) if match else reply


def closing(lines: Sequence[Line], reply: str, form: Form, shown: Sequence[str] | None) -> Value | None:
    """Return the value that ends a reply; None where it is quoted, or there is none.

    Args:
        shown: the texts that the judge was shown; None where they are not known.
    """
    last = lines[-1]
    alone = len(lines) == 1
    if MARKER.match(last.written.replace("**", "")) or (not alone and re.match(r" {4}|\t", last.written)):
        return None
    value = _given(last, form)
    if value is None or (last.text[0] in QUOTATION and not alone and value.begins == 0):
        return None
    if is_open(reply[: last.places[value.begins]]) or _attributed(lines, value, shown):
        return None
    before = " ".join([*(line.text for line in lines[:-1]), last.text[: value.begins]])
    return None if shown and is_echo(before, value.sentence, shown) else value


def opening(lines: Sequence[Line], form: Form, shown: Sequence[str] | None) -> Value | None:
    """Return the value that is a reply's first line, before an explanation; None where there is none."""
    first = lines[0]
    match = form.line.fullmatch(first.text)
    if match is None or MARKER.match(first.written.replace("**", "")) or first.text[0] in QUOTATION:
        return None
    two = [words for words in (_plain(line.text) for line in lines) if words][:2]
    if len(two) == 2 and shown and any("\n{}\n{}\n".format(*two) in f"\n{_words(text)}\n" for text in shown):
        return None
    return Value(match, first, 0)


def is_open(before: str) -> bool:
    """Whether a quotation, a code block, reasoning or a judged text has begun and not ended."""
    if before.count('"') % 2 or before.count("```") % 2 or len(TILDES.findall(before)) % 2:
        return True
    if any(before.count(opened) > before.count(closed) for opened, closed in PAIRED):
        return True
    if before.rfind("<think>") > before.rfind("</think>"):
        return True
    tags = [match[1] for match in TAG.finditer(before)]
    return bool(tags) and tags[-1] == ""


def is_echo(before: str, value: str, shown: Iterable[str]) -> bool:
    """Whether what stands before a value in a reply also stands before it in a text that was shown."""
    said, value = _plain(before)[-COMPARED:], _plain(value)
    for text in shown:
        words = _words(text)
        for place in _places(words, value):
            begins = max(0, place - COMPARED)
            earlier = words[begins:place].replace("\n", " ").strip()
            common = _common_end(said, earlier)
            if common >= SAME_WORDS or (common and begins == 0 and common == len(earlier)):
                return True
            if begins == 0 and not earlier and said.endswith(":") and ATTRIBUTION.search(said[-40:]):
                return True
    return False


def is_shown(value: str, shown: Iterable[str]) -> bool:
    """Whether a text that was shown holds a value, whatever its spacing and decoration; a short one as a line."""
    plain = _plain(value)
    return any(next(_places(_words(text), plain), None) is not None for text in shown)


INTRODUCES_OWN = re.compile(
    rf"{OPENER}(?:{QUALIFIER}{{1,3}}(?:answer|response|output|option|one)|{QUALIFIER}{{0,3}}(?:verdict|choice|winner"
    r"|judge?ment|decision|preference|conclusion|pick|selection|ranking|order|score|rating|grade|number)"
    rf"|answer|therefore|thus|hence|so|in conclusion|in summary|to conclude)(?:{JOIN})?\s*:?",
    re.IGNORECASE,
)


def _given(line: Line, form: Form) -> Value | None:
    """Return the value that a whole line is, or that its last sentence gives."""
    match = form.line.fullmatch(line.text)
    if match:
        return Value(match, line, 0)
    for begins in [0, *(found.end() for found in SENTENCE.finditer(line.text))]:
        match = form.sentence.fullmatch(line.text, begins)
        if match:
            return Value(match, line, begins)
    return None


def _attributed(lines: Sequence[Line], value: Value, shown: Sequence[str] | None) -> bool:
    """Whether what stands right before a value introduces somebody's words."""
    above = lines[-2].text if len(lines) > 1 else ""
    if value.begins == 0 and above.endswith(":"):
        return not INTRODUCES_OWN.fullmatch(above)
    if shown is not None and not is_shown(value.sentence, shown):
        return False  # nobody has said it before
    if value.begins == 0:
        return above[-1:] not in ".!?…)" and ATTRIBUTION.search(above) is not None
    earlier = value.line.text[: value.begins]
    if above.endswith(":") and not INTRODUCES_OWN.fullmatch(above):
        return True
    if shown is None:
        return any(ATTRIBUTION.search(part) for part in re.split(r":|\s[-–—]\s", earlier)[:-1])
    return ATTRIBUTION.search(earlier) is not None


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[*_`#>|\"'“”‘’«»\[\](){}\\$]", "", text).split())


def _words(text: str) -> str:
    """Return a text's lines without what decorates them, blank ones left out."""
    return "\n".join(filter(None, map(_plain, text.split("\n"))))


def _places(words: str, value: str) -> Iterator[int]:
    """Yield where a value stands in a text; a short one must be a whole line of it."""
    if not value:
        return
    pattern = re.escape(value).replace(r"\ ", r"\s")
    pattern = rf"(?<!\w){pattern}(?!\w)" if len(value) > 3 else rf"^{pattern}$"
    for found in re.finditer(pattern, words, re.MULTILINE):
        yield found.start()


def _common_end(one: str, other: str) -> int:
    """Return how many characters two texts end in alike."""
    count = 0
    for left, right in zip(reversed(one), reversed(other), strict=False):
        if left != right:
            break
        count += 1
    return count
