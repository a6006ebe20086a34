"""Words that a chat template writes around an answer and that the data does not hold."""

import re
from collections.abc import Sequence
from typing import Any

from alignment.data.answers import THOUGHTS
from alignment.data.conversations import REASONING
from alignment.strict_json import shown

_CHANNEL = r"<\|channel\|>\w+<\|message\|>"  # gpt-oss's header of an answer
_MARKUP = r"<[^<>\n]*>|\[\|[^\[\]\n]*\|\]|\[/?THINK\]"
_RECIPIENT = ">>>"  # Functionary's generation prompt ends so, and its answers begin with whom they address


class Additions:
    """Finds the first answer around which a template writes words, which are trained as a part of the answer."""

    def __init__(self, control_texts: Sequence[str]) -> None:
        """`control_texts` are the spellings of control tokens, which are no words."""
        self._marks = re.compile("|".join([_CHANNEL, *map(re.escape, control_texts), _MARKUP]))
        self._found: str | None = None  # what is reported; "" once it is taken
        self._known: set[tuple[str, str]] = set()  # what stands before and behind an answer, and has no words

    def take(self) -> str:
        """Return, once, the line about the first answer with words around it; "" where there is none."""
        found = self._found or ""
        self._found = "" if found else self._found
        return found

    def look(self, context: str, tail: str, message: dict[str, Any]) -> None:
        """Look for words around an answer.

        Args:
            context: what `tail` follows. tail: what the template writes of the answer, with its end.
            message: the answer, as the template reads it.
        """
        content = str(message["content"]).strip()
        if (
            self._found is not None
            or not content
            or message.keys() & {"tool_calls", *REASONING}
            or context.endswith(_RECIPIENT)
        ):
            return
        if any(tag in content for tags in THOUGHTS for tag in tags):
            return  # a template may write the thought in a form of its own
        place = first = tail.find(content)
        while place >= 0:
            if self._is_bare(tail[:place], tail[place + len(content) :]):
                return
            place = tail.find(content, place + 1)
        if first < 0:
            return
        before, behind = tail[:first], self._marks.sub("", tail[first + len(content) :])
        where, words = ("before", before) if self._has_words(before) else ("behind", behind)
        self._found = (
            f"the chat template writes {shown(words.strip())} {where} the answer {shown(content)}, and perhaps around "
            "others: it is trained as a part of the answer; set chat_template to one that writes the answer alone"
        )

    def _is_bare(self, before: str, behind: str) -> bool:
        if (before, behind) in self._known:
            return True
        if self._has_words(before) or self._has_words(behind):
            return False
        if len(before) + len(behind) < 200:
            self._known.add((before, behind))
        return True

    def _has_words(self, text: str) -> bool:
        return any(letter.isalnum() for letter in self._marks.sub("", text))
