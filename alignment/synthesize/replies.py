"""Reads the replies that writers give: lists, yes or no, examples of a task."""

import re
from collections.abc import Iterator

from alignment.synthesize.writing import Written, declines

BLANK = r"[ \t*#]*"  # with the marks of Markdown
ITEM = re.compile(rf"(?:^|\n){BLANK}\d+\s?[.)]{BLANK}")
EXAMPLE = re.compile(rf"^{BLANK}Example\s?\d*{BLANK}[.:]?{BLANK}", re.MULTILINE)
OUTPUT = re.compile(rf"^{BLANK}Output\s*\d*\s*{BLANK}:{BLANK}", re.MULTILINE)
INPUT = re.compile(rf"^{BLANK}Input\s*\d*\s*{BLANK}:{BLANK}", re.MULTILINE)
TASK = re.compile(rf"^{BLANK}Task\s*\d*{BLANK}:", re.MULTILINE)  # of another task, which a chat model may go on with
LABEL = re.compile(rf"^{BLANK}Class label{BLANK}:{BLANK}", re.MULTILINE)


def read_list(reply: Written) -> list[str]:
    """Return the items of a numbered list; of a reply that was cut off none, as the script does."""
    if reply.status != "ok":
        return []
    _, *items = ITEM.split(reply.text)
    items = [re.split(r"\n\s*\n", item.strip())[0] for item in items]  # a paragraph behind the list is no item
    texts = [" ".join(item.split()).strip("*") for item in items]
    return [text[:1].upper() + text[1:] for text in texts if text]


def read_yes_or_no(reply: Written) -> bool | None:
    """Return whether a reply begins with yes; None if it begins with neither yes nor no."""
    found = re.match(r"\W*(yes|no)\b", reply.text, re.IGNORECASE) if reply.status in ("ok", "truncated") else None
    return found[1].lower() == "yes" if found else None


def read_examples(text: str) -> Iterator[tuple[str, str]]:
    """Yield input and output of each example of an input-first reply; nothing if it has neither mark."""
    text = _of_this_task(text)
    if not (EXAMPLE.search(text) or OUTPUT.search(text)):
        return
    before, *parts = EXAMPLE.split(text)
    for part in [before, *parts] if not parts or OUTPUT.search(before) else parts:
        if not part.strip():
            continue
        given, *rest = OUTPUT.split(part)
        given, output = (given, rest[0]) if rest else ("", given)
        yield INPUT.sub("", given.strip(), count=1).strip(), INPUT.split(output)[0].strip()


def read_labelled(text: str) -> Iterator[tuple[str, str]]:
    """Yield input and label of each example of an output-first reply."""
    for part in LABEL.split(_of_this_task(text))[1:]:
        label, _, given = part.strip().partition("\n")
        yield given.strip(), label.strip()


def _of_this_task(text: str) -> str:
    """Return a reply without a heading that repeats the task, and without tasks that follow."""
    text = text.lstrip()
    if TASK.match(text):
        text = text.partition("\n")[2]
    return TASK.split(text)[0]


def why_nothing(reply: Written) -> str:
    """Return why a reply gives nothing: its status, "refusal", or "parse_error" if it has an unexpected form."""
    if declines(reply):
        return "refusal"
    return "parse_error" if reply.status == "ok" else reply.status
