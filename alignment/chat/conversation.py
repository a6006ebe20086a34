"""A conversation: its messages, or texts and their continuations where there is no chat template."""

from dataclasses import dataclass, field
from typing import Any

from alignment.data.rows import Message, Prompt


@dataclass
class Conversation:
    """What was said so far.

    Args:
        chats: whether it has messages; otherwise each text is continued by itself.
    """

    chats: bool
    system: str | None = None
    turns: list[tuple[str, str, bool]] = field(default_factory=list)  # the user's words, the answer, whether it ended

    def prompt(self, words: str) -> Prompt:
        """Return what the answer to the user's next words is sampled from."""
        if not self.chats:
            return words
        return [*self._messages(), {"role": "user", "content": words}]

    def _messages(self) -> list[Message]:
        found = [] if self.system is None else [{"role": "system", "content": self.system}]
        for words, answer, _ in self.turns:
            found += [{"role": "user", "content": words}, {"role": "assistant", "content": answer}]
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Return the conversation as rows of the layout `messages`, or `prompt_completion`.

        An answer that was cut off does not train: as a message it has the weight 0, as a continuation it is left out.
        """
        if not self.chats:
            return [{"prompt": words, "completion": answer} for words, answer, ended in self.turns if ended]
        messages: list[dict[str, Any]] = [dict(message) for message in self._messages()]
        answers = (message for message in messages if message["role"] == "assistant")
        for message, (_, _, ended) in zip(answers, self.turns, strict=True):
            if not ended:
                message["weight"] = 0
        return [{"messages": messages}] if any(ended for _, _, ended in self.turns) else []
