"""Repair of texts: Unicode, control characters, HTML, white space, boilerplate."""

import re

import ftfy

from alignment.config.schema.steps.cleaning import CleanEntry
from alignment.data.prepare.markup import without_html
from alignment.data.prepare.step import ROLES, Change, Drop, Outcome, Row, Step

# Control characters but tab and line feed; C1 controls; byte order mark and zero-width space. Joiners stay: Persian and
# Hindi text and emoji need them.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\u200b\u2060]")
_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\u2028\u2029]")  # a form feed ends a page
_BLANK_LINES = re.compile(r"\n{3,}")
_FIRST_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")  # blank ones; the indentation of the first line with text stays


class Clean(Step):
    """Changes the texts of one row."""

    def __init__(self, entry: CleanEntry) -> None:
        self.entry, self.roles = entry, ROLES[entry.on]
        self.boilerplate = [re.compile(pattern) for pattern in entry.boilerplate]

    def apply(self, row: Row) -> Outcome:
        """Return the row with clean texts; drop one that they leave without an answer."""
        roles, texts = self.roles, row.texts
        joined = isinstance(row.value.get("prompt"), str)  # prompt and answer, without a separator
        changes: dict[str, None] = {}
        new = []
        for text in texts:
            cleaned, kinds = self.cleaned(text.text, joined=joined) if text.role in roles else (text.text, [])
            new.append(cleaned)
            changes |= dict.fromkeys(kinds)
        if not changes:
            return row
        if any(text.text.strip() and not one.strip() for text, one in zip(texts, new, strict=True)):
            return Drop("nothing is left of a text", ", ".join(changes))
        return Change(", ".join(changes), (row.with_texts(new),))

    def cleaned(self, text: str, *, joined: bool = False) -> tuple[str, list[str]]:
        """Return a text without what the entry removes, and the kinds of changes.

        Args:
            joined: another text stands directly before or behind it, so that white space at its ends stays.
        """
        kinds = []
        for kind in ("unicode", "control", "html", "boilerplate", "whitespace"):
            if getattr(self.entry, kind):
                new = getattr(self, f"_{kind}")(text) if kind != "whitespace" else _whitespace(text, joined)
                if new != text:
                    kinds.append(kind)
                    text = new
        return text, kinds

    def _unicode(self, text: str) -> str:
        if text.isascii():  # none of the repairs below concerns it
            return text
        # ftfy's other repairs change quotation marks, line ends and HTML; they have keys of their own, or stay.
        return ftfy.fix_text(
            text, unescape_html=False, uncurl_quotes=False, fix_latin_ligatures=False, fix_character_width=False,
            fix_line_breaks=False, remove_terminal_escapes=False, remove_control_chars=False, normalization="NFC",
        )  # fmt: skip

    def _control(self, text: str) -> str:
        return _CONTROL.sub("", _LINE_ENDS.sub("\n", text))

    def _html(self, text: str) -> str:
        return without_html(text)

    def _boilerplate(self, text: str) -> str:
        lines = text.split("\n")
        kept = [line for line in lines if not any(one.fullmatch(line.strip()) for one in self.boilerplate)]
        return "\n".join(kept)


def _whitespace(text: str, joined: bool) -> str:
    inner = text.rstrip()
    end = text[len(inner) :] if joined else ""
    if not joined:
        inner = _FIRST_LINES.sub("", inner)
    return _BLANK_LINES.sub("\n\n", "\n".join(line.rstrip() for line in inner.split("\n"))) + end


def build(entry: CleanEntry, seed: int) -> Clean:
    """Return the step."""
    return Clean(entry)
