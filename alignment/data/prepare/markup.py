"""Removal of HTML from texts that may also hold code, comparisons and words in angle brackets.

A tag counts as HTML if its name and attributes are, and something shows that it is no word: its other tag, an attribute
with a value, or an element that has none. Code in Markdown, as CommonMark defines it, stays.
"""

import html
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_BLOCKS = set(
    "address article aside blockquote body caption center dd details dialog dir div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 head header hgroup html legend li main menu nav noscript ol optgroup option p pre "
    "search section select summary table tbody textarea tfoot thead title tr ul".split()
)
_INLINE = set(
    "a abbr acronym audio b bdi bdo big button canvas cite code colgroup data datalist del dfn em font i iframe ins "
    "kbd label map mark meter nobr object output picture progress q rp rt ruby s samp script slot small span strike "
    "strong style sub sup svg td template th time tt u var video".split()
)
_VOID = set("area base br col embed hr img input link meta param source track wbr".split())  # have no end tag
_ALONE = {"br", "hr", "wbr"}  # need no attributes
_OPTIONAL = set(
    "body colgroup dd dt head html li optgroup option p rp rt tbody td tfoot th thead tr".split()
)  # end tag
_CELLS = {"td", "th"}
_NAMES = _BLOCKS | _INLINE | _VOID
_FLAGS = set(
    "allowfullscreen async autofocus autoplay checked controls default defer disabled formnovalidate hidden inert "
    "ismap itemscope loop multiple muted nomodule noshade novalidate nowrap open playsinline readonly required "
    "reversed selected".split()
)
_VALUE = r"""\s{0,9}=\s{0,9}(?:"[^"]{0,9999}"|'[^']{0,9999}'|[^\s"'=<>`]{1,9999})"""
_ATTRIBUTE = re.compile(rf"""\s+([^\s"'<>/=]{{1,99}})({_VALUE})?""")
_TAG = re.compile(
    rf"""<(/?)([A-Za-z][A-Za-z0-9]{{0,11}})((?:\s+[^\s"'<>/=]{{1,99}}(?:{_VALUE})?){{0,99}})\s{{0,99}}/?>"""
)
_DOCTYPE = re.compile(r"<!doctype\s+html[^<>]{0,999}>", re.IGNORECASE)
_REFERENCE = re.compile(r"&(#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_MAY_BE_CODE = re.compile(r"`|~~~|^(?: {4}| {0,3}\t)", re.MULTILINE)
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Tag:
    start: int
    end: int
    name: str
    closes: bool
    certain: bool  # whatever stands around it


def without_html(text: str) -> str:
    """Return a text without tags, comments, scripts and styles of HTML, and with its character references decoded."""
    if "<" not in text and "&" not in text:
        return text
    fixed, indented = _code(text)
    code = sorted([*fixed, *indented])
    tags, elements = _of_html(text, [*_tags(text, code)])
    starts = [start for start, _ in elements]
    kept = [span for span in indented if not _within(span[0], elements, starts)]  # an indented line of an element
    if len(kept) < len(indented):
        code = sorted([*fixed, *kept])
        tags, _ = _of_html(text, [*_tags(text, code)])
    return _assembled(text, tags, code)


def _tags(text: str, code: list[Span]) -> Iterator[_Tag]:
    starts = [start for start, _ in code]
    hidden = _hidden(text, code)
    found = {start: _Tag(start, end, "", False, True) for start, end in hidden}
    starts_hidden = [start for start, _ in hidden]
    for match in _TAG.finditer(text):
        start, end = match.span()
        name, attributes = match[2].lower(), match[3]
        if name in _NAMES and not _within(start, code, starts) and not _within(start, hidden, starts_hidden):
            values = [(one[1].lower(), one[2]) for one in _ATTRIBUTE.finditer(attributes)]
            if all(value or attribute in _FLAGS for attribute, value in values) and not (match[1] and values):
                certain = name in _ALONE or any(value for _, value in values)
                found[start] = _Tag(start, end, name, bool(match[1]), certain)
    for match in _DOCTYPE.finditer(text):
        if not _within(match.start(), code, starts):
            found[match.start()] = _Tag(*match.span(), "", False, True)
    for place in sorted(found):
        yield found[place]


def _hidden(text: str, code: list[Span]) -> list[Span]:
    """Return comments, and scripts and styles with what they hold."""
    starts, low = [start for start, _ in code], text.lower()
    if len(low) != len(text):  # a character whose small letter is two characters
        low = text.translate({code: code + 32 for code in range(65, 91)})
    found: list[Span] = []
    ends: dict[str, int] = {}  # of a mark that has no end behind this place
    place = 0
    for match in re.finditer(r"<!--|<(script|style)\b[^<>]{0,9999}>", low):
        start, mark = match.start(), match[1] or "-->"
        if start < place or ends.get(mark, len(text)) <= start or _within(start, code, starts):
            continue
        close = low.find("-->" if mark == "-->" else f"</{mark}", match.end())
        end = close + 3 if mark == "-->" else low.find(">", close) + 1
        if close < 0 or end <= close:
            ends[mark] = start
            continue
        found.append((start, end))
        place = end
    return found


def _of_html(text: str, tags: list[_Tag]) -> tuple[list[_Tag], list[Span]]:
    """Return the tags that are HTML rather than words, and the outermost block elements with both tags."""
    partners: dict[str, list[int]] = {}
    chosen = {place for place, tag in enumerate(tags) if tag.certain}
    pairs: list[Span] = []
    for place, tag in enumerate(tags):
        if tag.closes and partners.get(tag.name):
            other = partners[tag.name].pop()
            if _is_word(text, tags[other]) and _is_word(text, tag):
                continue
            chosen |= {other, place}
            if tag.name in _BLOCKS:
                pairs.append((tags[other].start, tag.end))
        elif not tag.closes and tag.name not in _VOID:
            partners.setdefault(tag.name, []).append(place)
    is_html = bool(chosen) or any(tag.name in _OPTIONAL and _begins_line(text, tag) for tag in tags)
    if is_html:
        chosen |= {place for place, tag in enumerate(tags) if tag.name in _OPTIONAL}
    elements: list[Span] = []
    for start, end in sorted(pairs):
        if not elements or start >= elements[-1][1]:
            elements.append((start, end))
        elif end > elements[-1][1]:
            elements[-1] = (elements[-1][0], end)
    return [tag for place, tag in enumerate(tags) if place in chosen], elements


def _is_word(text: str, tag: _Tag) -> bool:
    """Whether a tag stands between spaces, as in `put it between <title> and </title>`."""
    before, behind = text[tag.start - 1 : tag.start], text[tag.end : tag.end + 1]
    return not tag.certain and before == " " and (behind in (" ", "") or behind in ".,;:!?)")


def _begins_line(text: str, tag: _Tag) -> bool:
    """Whether a tag begins a line and text follows it at once."""
    before, behind = text[tag.start - 1 : tag.start], text[tag.end : tag.end + 1]
    return not tag.closes and before in ("", "\n") and not behind.isspace() and behind != ""


def _assembled(text: str, tags: list[_Tag], code: list[Span]) -> str:
    parts: list[str] = []
    starts = [start for start, _ in code]
    place, has_text = 0, False  # has_text: the last line of the parts
    for tag in tags:
        if tag.start < place:
            continue
        known = len(parts)
        _decode(text, place, tag.start, code, starts, parts)
        for part in parts[known:]:
            _, _, last = part.rpartition("\n")
            has_text = bool(last.strip()) or (has_text and "\n" not in part)
        place = tag.end
        if tag.name in ("br", "hr") or (tag.name in _BLOCKS and has_text):
            parts.append("\n")
            has_text = False
        elif tag.name in _BLOCKS and parts:
            parts[-1] = parts[-1].rstrip(" \t")  # the indentation of the tag
        elif tag.name in _CELLS and not tag.closes and has_text:
            parts.append(" ")
    _decode(text, place, len(text), code, starts, parts)
    return "".join(parts)


def _decode(text: str, start: int, end: int, code: list[Span], starts: list[int], parts: list[str]) -> None:
    """Append a part of a text with its character references decoded, except in code."""
    at = bisect_right(starts, start) - 1
    while start < end:
        if at >= 0 and code[at][0] <= start < code[at][1]:
            stop = min(end, code[at][1])
            parts.append(text[start:stop])
        else:
            stop = min(end, starts[at + 1]) if at + 1 < len(starts) else end
            parts.append(_REFERENCE.sub(lambda match: html.unescape(match[0]), text[start:stop]))
        if at + 1 < len(starts) and stop >= starts[at + 1]:
            at += 1
        start = stop
    if parts and not parts[-1]:
        parts.pop()


def _code(text: str) -> tuple[list[Span], list[Span]]:
    """Return the places of fenced and inline code, and those of indented code."""
    if not _MAY_BE_CODE.search(text):
        return [], []
    begins = [0, *(match.end() for match in re.finditer("\n", text))]
    fenced: list[Span] = []
    indented: list[Span] = []
    for token in _markdown().parse(text):
        if token.type in ("fence", "code_block") and token.map:
            first, last = token.map
            span = (begins[first], begins[last] if last < len(begins) else len(text))
            (fenced if token.type == "fence" else indented).append(span)
    return [*fenced, *_inline(text, sorted([*fenced, *indented]))], indented


def _inline(text: str, code: list[Span]) -> Iterator[Span]:
    """Yield inline code: between two runs of as many backticks, in one paragraph."""
    starts = [start for start, _ in code]
    blank = [match.start() for match in _BLANK_LINE.finditer(text)]
    runs = [match.span() for match in re.finditer("`+", text) if not _within(match.start(), code, starts)]
    following: dict[int, int] = {}  # a run → the next one of its length
    latest: dict[int, int] = {}
    for number in range(len(runs) - 1, -1, -1):
        length = runs[number][1] - runs[number][0]
        following[number] = latest.get(length, -1)
        latest[length] = number
    number = 0
    while number < len(runs):
        start, other = runs[number][0], following[number]
        if other >= 0 and bisect_right(blank, start) == bisect_right(blank, runs[other][0]):
            yield start, runs[other][1]
            number = other + 1
        else:
            number += 1


@lru_cache(maxsize=1)
def _markdown() -> Any:
    """Return a parser of CommonMark's blocks."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").disable(["inline", "text_join"])


def _within(place: int, spans: list[Span], starts: list[int]) -> bool:
    at = bisect_right(starts, place) - 1
    return at >= 0 and place < spans[at][1]
