"""Answers that wait for a place in the batch."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from alignment.serve.answer import Answer


@dataclass(frozen=True, slots=True)
class Entry:
    """Answers that continue the same tokens, which are read once."""

    ids: list[int]
    answers: list[Answer]
    apart: bool = False  # it is read with no other: reading it with others has failed

    @property
    def adapter(self) -> str | None:
        """The adapter that reads and writes."""
        return self.answers[0].adapter


class Waiting:
    """A queue of entries, first come first served."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self.answers())

    def add(self, entry: Entry) -> None:
        """Put an entry at the end."""
        self._entries.append(entry)

    def put_back(self, entry: Entry) -> None:
        """Put an entry that had begun first."""
        self._entries.appendleft(entry)

    def drop_cancelled(self) -> None:
        """Forget answers that nobody waits for."""
        live = [(entry, [one for one in entry.answers if not one.cancelled]) for entry in self._entries]
        self._entries = deque(replace(entry, answers=answers) for entry, answers in live if answers)

    def take(self, fits: Callable[[int, int], bool], part: int | None) -> list[Entry]:
        """Return the entries that are read next: one long one, or several of at most `part` tokens together.

        Args:
            fits: whether so many more answers, the longest of so many tokens, have a place. part: None: one entry.
        """
        taken: list[Entry] = []
        answers = longest = 0
        while self._entries:
            entry = self._entries[0]
            length = max(longest, len(entry.ids))
            if taken and (part is None or entry.apart or (len(taken) + 1) * length > part):
                break
            room = next((n for n in range(len(entry.answers), 0, -1) if fits(answers + n, length)), 0)
            if not room:
                break
            self._entries.popleft()
            taken.append(replace(entry, answers=entry.answers[:room]))
            answers, longest = answers + room, length
            if room < len(entry.answers):
                self._entries.appendleft(replace(entry, answers=entry.answers[room:]))
                break
            if part is None or entry.apart:
                break
        return taken

    def answers(self) -> list[Answer]:
        """Return the answers that wait."""
        return [answer for entry in self._entries for answer in entry.answers]
