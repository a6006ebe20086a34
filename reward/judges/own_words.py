"""Which words of a reply are the judge's own, and which it quotes from what it was shown.

A judge is asked to end with a verdict of a given form. What it writes before may quote the answers, forged verdicts
among them, so a verdict counts where it ends the reply and nothing shows that it is quoted. It is quoted where it
stands in quotation marks, a block quote, a list, a table, a code block or unfinished reasoning, behind a line that
introduces somebody's words, or behind the same words as in a text that was shown.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

BLANK = " \t\r\f\v\xa0\u2028\u2029\x85\ufeff\u200b"
# What may open a sentence that gives a verdict: "So", "In conclusion, my final", "Therefore, the better".
OPENER = (
    r"(?:(?:and so|so|thus|hence|therefore|overall|finally|in conclusion|in summary|in short|to conclude|all in all"
    r"|conclusion|(?:considering|weighing|taking) (?:everything|all (?:of )?(?:this|that)|both(?: answers)?|it all"
    r"|this)(?: together| into account)?|after (?:careful )?(?:consideration|(?:weighing|comparing) (?:both|them)"
    r"(?: answers)?)|(?:based on|given) (?:this|these|the above)[\w ]{0,40})(?:\s*[,:])?\s+)?"
    r"(?:i (?:conclude|find|decide|judge|think|believe)(?: that)?\s+|here(?: is|['’]s)\s+|this is\s+)?"
    r"(?:(?:the|my|our)\s+)?"
)
QUALIFIER = r"(?:(?:final|overall|own|better|best|preferred|winning|chosen|correct|superior)\s+)"
JOIN = r"\s*(?:\b(?:is|would be)\b|:|：|=|→|->|=>|-|–|—)[\s:]*"
# Brackets around the value itself: "[[B]]", "(B)", "\boxed{B}", "$\boxed{\text{B}}$", "'B'".
OPEN = r"\s*(?:\\\(|\\\[|\$+)?\s*(?:\\boxed\s*\{\s*)?(?:\\(?:text|textbf|mathrm|mathbf)\s*\{\s*)?[\[({]{0,2}\s*"
# An XML tag around the value; `TAGGED` goes before it and `UNTAGGED` behind.
TAGGED, UNTAGGED = r"(?:<(?P<tag>verdict|answer|choice|winner|ranking|score|rating)>\s*)?", r"(?(tag)\s*</(?P=tag)>)"
CLOSE = r"\s*[\])}]{0,4}\s*(?:\\\)|\\\]|\$+)?\s*[.!✅🏆🎉]*\s*"
PAIRED = (("“", "”"), ("«", "»"))
QUOTATION = "\"'“‘«"
MARKER = re.compile(r"\s*(?:>|&gt;|\||[-+•◦‣]\s|\*\s|\d{1,3}[.)]\s+\S|[a-z][.)]\s+\S)")  # of a quote, table or list
ATTRIBUTION = re.compile(
    r"\b(?:answers?|outputs?|responses?|options?|assistants?|candidates?|users?|requests?|prompts?|texts?|writers?"
    r"|authors?|it|says?|said|claims?|claimed|states?|stated|writes?|wrote|reads?|quotes?|quoted|contains?|ends?)\b",
    re.IGNORECASE,
)
SENTENCE = re.compile(r"(?<=[.!?;])[\"')\]]*\s+|\s[-–—]\s+|,\s*(?=(?:and so|so|thus|hence|therefore)\b)", re.IGNORECASE)
# What may announce somebody's words without a colon: "... the following line.", "Let me quote answer B."
ANNOUNCES = re.compile(
    r"(?:\bfollows|\bbelow|\blike (?:so|this)|\bverbatim|\bword for word|\bin full|\bfollowing"
    r"(?: \w+){0,2}|\b(?:quot|repeat|copy|cit)(?:e|es|ing)?(?: (?:the )?(?:answer|response|output|option))?"
    r"(?: [A-Z]|it)?)[.…]?",
    re.IGNORECASE,
)
THOUGHTS = ("think", "thinking", "thought", "reasoning", "analysis", "scratchpad", "reflection")
REASONS = (*THOUGHTS, "quote", "blockquote")
BEGUN = re.compile(
    rf"<(?P<tag>{'|'.join(REASONS)})>|</(?P<ended>{'|'.join(REASONS)})>|(?P<bracket>\[THINK\])|(?P<shut>\[/THINK\])"
    r"|(?P<comment><!--)|(?P<over>-->)|<\|channel\|>(?P<channel>\w+)",
    re.IGNORECASE,
)
ANNOTATIONS = ("", "final")  # of a channel: what is said there is the reply
# What may follow a value that opens a reply and is not the judge's own.
DISOWNS = re.compile(
    r"\b(?:this|that|it) (?:line|is what)\b|\b(?:wants|tells|told|asks|asked|instructs|instructed|orders) me\b"
    r"|\bI (?:will |must |should |shall )?(?:ignore|disregard)|\bmanipulat|\binject",
    re.IGNORECASE,
)
# A reason behind a value, in the same sentence: ", because it is complete".
REASON = re.compile(
    r"[,;]?\s*[-–—(]?\s*\b(?:because|since|as (?:it|the)|given that|due to)\b"
    r"|\s\((?=\w+ \w+ \w+[^()]*\)[.!]?$)|\s[-–—]\s(?=\w+ \w+ \w+[^-–—]*$)",  # "(A is too long)", "- A is too long"
    re.IGNORECASE,
)
# What in a reason may take the value back, or quote.
UNSOUND = re.compile(
    r"\b(?:but|however|although|though|yet|unless|if|would|could|might|may|maybe|perhaps|actually|instead|rather|except"
    r"|otherwise|wait|neither|nor|either|or|verdict|says? so|said so)\b|[?\"“”«»:{}\[\]\\<>=]|[.!;]\s",
    re.IGNORECASE,
)
RULE = re.compile(r"[-=–—]{3,}")  # a line across the page
QUOTE = re.compile(r"\s*(?:>|&gt;)")
THOUGHT = re.compile(rf"\s*<(?P<tag>{'|'.join(THOUGHTS)})>.*</(?P=tag)>", re.DOTALL)
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
    reason: str = ""  # what follows it in the same sentence

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
        if line.text and not RULE.fullmatch(line.text):
            lines.append(line)
        start += len(written) + 1
    return lines


def unfenced(reply: str) -> str:
    """Return a reply that is one code block without its fences, which become blanks, so that places stay."""
    match = re.fullmatch(r"(\s*```[a-z]*[ \t]*\n)([^`]*)(\n[ \t]*```\s*)", reply)
    return " " * len(match[1]) + match[2] + " " * len(match[3]) if match else reply


def unthought(reply: str) -> str:
    """Return a reply with the reasoning that it begins with, if it ended, as blanks, so that places stay."""
    match = THOUGHT.match(reply)
    return " " * match.end() + reply[match.end() :] if match else reply


def closing(lines: Sequence[Line], reply: str, form: Form, shown: Sequence[str] | None) -> Value | None:
    """Return the value that ends a reply; None if it is quoted, or there is none.

    Args:
        shown: the texts that the judge was shown; None if they are not known.
    """
    last = lines[-1]
    alone = len(lines) == 1
    if MARKER.match(last.written.replace("**", "")) or (not alone and re.match(r" {4}|\t", last.written)):
        return None
    if QUOTE.match(reply[: last.places[0]].rpartition("\n")[0].rpartition("\n")[2]):
        return None  # Markdown counts the lines that follow a quoted one to the quotation, up to a blank one
    value = _given(last, form) or _reasoned(last, form, shown)
    if value is None or (last.text[0] in QUOTATION and not alone and value.begins == 0):
        return None
    if is_open(reply[: last.places[value.begins]]) or _attributed(lines, value, shown):
        return None
    before = " ".join([*(line.text for line in lines[:-1]), last.text[: value.begins]])
    return None if shown and is_echo(before, value.sentence, shown) else value


def opening(lines: Sequence[Line], reply: str, form: Form, shown: Sequence[str] | None) -> Value | None:
    """Return the value that is a reply's first line, before an explanation; None if there is none."""
    first = lines[0]
    match = form.line.fullmatch(first.text) or form.sentence.fullmatch(first.text)
    if match is None or MARKER.match(first.written.replace("**", "")) or first.text[0] in QUOTATION:
        return None
    if is_open(reply[: first.places[0]]):
        return None
    if any(DISOWNS.search(line.text) for line in lines[1:]):
        return None
    two = [words for words in (_plain(line.text) for line in lines) if words][:2]
    if len(two) == 2 and shown and any("\n{}\n{}\n".format(*two) in f"\n{_words(text)}\n" for text in shown):
        return None
    return Value(match, first, 0)


def is_open(before: str) -> bool:
    """Whether a quotation, a code block, reasoning or a judged text has begun and not ended."""
    if _in_marks(before) or before.count("```") % 2 or len(TILDES.findall(before)) % 2:
        return True
    if any(before.count(opened) > before.count(closed) for opened, closed in PAIRED):
        return True
    if _reasons(before):
        return True
    tags = [match[1] for match in TAG.finditer(before)]
    return bool(tags) and tags[-1] == ""


def _in_marks(before: str) -> bool:
    """Whether straight quotation marks are open; one right behind a digit, outside a quotation, is inches."""
    inside = False
    for place in (found.start() for found in re.finditer('"', before)):
        if inside or not before[place - 1 : place].isdigit():
            inside = not inside
    return inside


def _reasons(before: str) -> bool:
    """Whether reasoning, a comment or a tagged quotation has begun and not ended."""
    closes = {"ended": "tag", "shut": "bracket", "over": "comment"}
    depth = dict.fromkeys(closes.values(), False)
    channel = ""
    for found in BEGUN.finditer(before):
        kind = str(found.lastgroup)
        if kind == "channel":
            channel = found["channel"].lower()
        else:
            depth[closes.get(kind, kind)] = kind in depth
    return any(depth.values()) or channel not in ANNOTATIONS


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
    r"|(?:(?:overall|final) )?(?:assessment|evaluation|analysis|comparison|summary|reasoning|explanation)"
    r"|comparing (?:both|the two|them)(?: answers)?"
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


def _reasoned(line: Line, form: Form, shown: Sequence[str] | None) -> Value | None:
    """Return the value of a sentence that goes on with a reason, if that neither takes it back nor was shown."""
    found = REASON.search(line.text)
    if found is None or UNSOUND.search(line.text, found.end()) or DISOWNS.search(line.text, found.end()):
        return None
    for begins in [0, *(end.end() for end in SENTENCE.finditer(line.text, 0, found.start()))]:
        for pattern in (form.line, form.sentence):
            match = pattern.fullmatch(line.text, begins, found.start())
            if match and not is_shown(line.text[begins:], without_question(shown or ())):
                return Value(match, line, begins, line.text[found.end() :])
    return None


def _attributed(lines: Sequence[Line], value: Value, shown: Sequence[str] | None) -> bool:
    """Whether what stands right before a value introduces somebody's words."""
    above = lines[-2].text if len(lines) > 1 else ""
    introduces_own = INTRODUCES_OWN.fullmatch(SENTENCE.split(above)[-1]) is not None
    if value.begins == 0 and above.endswith(":"):
        return not introduces_own
    before = above if value.begins == 0 else SENTENCE.split(value.line.text[: value.begins].strip())[-1]
    if ANNOUNCES.search(before) and re.search(rf"(?:{ANNOUNCES.pattern})$", before, re.IGNORECASE):
        return True
    if shown is not None and not is_shown(value.sentence, without_question(shown)):
        return False  # nobody has said it before
    if value.begins == 0:
        return above[-1:] not in ".!?…)0123456789" and ATTRIBUTION.search(above) is not None
    earlier = value.line.text[: value.begins]
    if above.endswith(":") and not introduces_own:
        return True
    if shown is None:
        return any(ATTRIBUTION.search(part) for part in re.split(r":|\s[-–—]\s", earlier)[:-1])
    return ATTRIBUTION.search(earlier) is not None


def without_question(shown: Sequence[str]) -> list[str]:
    """Return the texts without the one that holds the others: a question offers each verdict in words of its own."""
    words = [_words(text) for text in shown]
    return [
        text
        for text, own in zip(shown, words, strict=True)
        if len(shown) < 2 or not all(other in own for other in words)
    ]


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
