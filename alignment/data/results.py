"""Results of tools that data sets wrap in the tags that a chat template writes around them itself."""

import re
from collections.abc import Callable

_BEGIN, _END = "<tool_response>", "</tool_response>"
_BETWEEN = re.compile(rf"({_END}\s*{_BEGIN})")


def unwrapped(content: str, chat_template: str, hide: Callable[[str], str]) -> str:
    """Return a tool's result as the template reads it, each text in it as `hide` writes it.

    Hermes' data sets have one or several results in `<tool_response>` in one message. Where the template writes these
    tags, the outer ones are taken off, and those between two results stay tags.
    """
    text = content.strip()
    if _BEGIN not in chat_template or not (text.startswith(_BEGIN) and text.endswith(_END)):
        return hide(content)
    parts = _BETWEEN.split(text.removeprefix(_BEGIN).removesuffix(_END).strip("\n"))
    return "".join(part if place % 2 else hide(part) for place, part in enumerate(parts))
