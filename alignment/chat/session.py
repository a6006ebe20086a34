"""A chat session: each line is a message or a command."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from alignment.chat.answering import Answer, Answering
from alignment.chat.conversation import Conversation
from alignment.chat.interrupts import interrupts_kept
from alignment.chat.preferences import TIE, Preferences, require_jsonl, row_of
from alignment.chat.screen import Screen
from alignment.chat.settings import ChatKeys, keys_of, value_of
from alignment.config.expanded import expanded
from alignment.data.rows import Prompt
from alignment.errors import AlignmentError, DataError
from alignment.json_lines import lines_of
from alignment.run.files import naming_the_disk, write_atomic
from alignment.strict_json import is_whole

COMMANDS = {
    "/system TEXT": "set the system message and begin a new conversation; without TEXT there is none",
    "/reset": "begin a new conversation, with the same system message",
    "/set KEY VALUE": "change a sampling key; without KEY, list the keys with their values",
    "/prefer N": "with several runs: record that answer N is better, or `tie`, and go on from it",
    "/save FILE": "write the conversation to a .jsonl file that the stages read",
    "/help": "list the commands",
    "/quit": "end, as Ctrl-D; Ctrl-C stops an answer",
}


@dataclass
class Last:
    """What was answered last."""

    words: str
    prompt: Prompt
    answers: list[Answer]
    recorded: bool = False  # whether its preference is in the file


class Session:
    """A conversation with one or several policies.

    With several, all answer the same conversation, which goes on from the answer that is preferred, else the first.
    """

    def __init__(
        self, answering: Answering, keys: ChatKeys, preferences: Preferences, screen: Screen, *, chats: bool
    ) -> None:
        """Begin.

        Args:
            chats: False: each message is continued as text, without a chat template.
        """
        self.answering, self.keys, self.preferences, self.screen = answering, keys, preferences, screen
        self.talk = Conversation(chats)
        self.turn = 0  # answers since the seed was set
        self.faults = 0  # lines that could not be followed
        self.last: Last | None = None
        self._saved: set[Path] = set()
        self._commands: dict[str, Callable[[str], None]] = {
            "/system": self.set_system,
            "/reset": self._reset,
            "/set": self._set,
            "/prefer": self._prefer,
            "/save": self._save,
            "/help": self._help,
        }

    def take(self, line: str) -> bool:
        """Follow a line; return False at the end of the session."""
        word, _, rest = line.strip().partition(" ")
        if word in ("/quit", "/exit"):
            return False
        try:
            if not is_whole(line):
                raise DataError("not sent: the line has bytes that are not UTF-8.")
            if line.strip().startswith("//"):
                self._answer(line.strip()[1:])
            elif not word.startswith("/"):
                self._answer(line)
            elif word in self._commands:
                self._commands[word](rest.strip())
            else:
                raise DataError(f"{word}: no such command; /help lists them. A message may begin with //.")
        except AlignmentError as error:
            self.faults += 1
            self.screen.note(str(error))
        except torch.cuda.OutOfMemoryError:
            self.faults += 1
            self.screen.note("not answered: the GPU has no memory left; /reset begins a new conversation.")
        return True

    def _answer(self, words: str) -> None:
        if not words.strip():
            return
        prompt = self.talk.prompt(words)
        answers = self.answering.begin(prompt, self.keys)
        with interrupts_kept() as interrupted:
            self.screen.show(answers, self.answering.write(answers, self.keys, self.turn, interrupted))
        self.turn += 1
        self.last = Last(words, prompt, answers)
        self.talk.turns.append((words, answers[0].text, answers[0].stopped))

    def set_system(self, text: str) -> None:
        """Set the system message and begin anew; "" is none.

        Raises: DataError if a chat template takes none; nothing has changed.
        """
        if not self.talk.chats:
            raise DataError("/system: without a chat template there is no system message; text is continued as it is.")
        begun = Conversation(True, text or None)
        self.answering.begin(begun.prompt("Hi"), self.keys)
        self.talk, self.last = begun, None

    def _reset(self, rest: str) -> None:
        self._refuse_more("/reset", rest)
        self.talk, self.last = Conversation(self.talk.chats, self.talk.system), None

    def _set(self, rest: str) -> None:
        if not rest:
            self.screen.note(", ".join(f"{key} {value}" for key, value in self.keys.model_dump().items()))
            return
        key, _, value = rest.replace("=", " ").partition(" ")
        if not value.strip():
            raise DataError("/set: write /set KEY VALUE, such as /set temperature 0.7")
        self.keys = keys_of({key: value_of(value.strip())}, self.keys)
        if key == "seed":
            self.turn = 0

    def _prefer(self, choice: str) -> None:
        if self.last is None:
            raise DataError("/prefer: there is no answer yet.")
        row = row_of(self.last.prompt, self.last.answers, choice, self.keys)
        self.preferences.append(row, replaces=self.last.recorded)
        self.last.recorded = True
        chosen = self.last.answers[0 if choice == TIE else int(choice) - 1]
        self.talk.turns[-1] = (self.last.words, chosen.text, chosen.stopped)
        self.screen.note(f"(recorded in {self.preferences.path})")

    def _save(self, rest: str) -> None:
        if not rest:
            raise DataError("/save: name a file that ends in .jsonl")
        name, fault = expanded(rest)
        if fault or not name.isprintable():
            raise DataError(f"/save: {fault or 'the name has a control character'}")
        path = Path(name)
        with naming_the_disk(path):
            require_jsonl(path)
            if path.exists() and path.resolve() not in self._saved:
                raise DataError(f"{path}: exists already; name another file.")
        rows = self.talk.rows()
        if not rows:
            raise DataError("/save: no answer has ended by itself yet, and one that was cut off is not trained on.")
        write_atomic(path, lines_of(rows))
        self._saved.add(path.resolve())
        self.screen.note(f"(saved in {path})")

    def _help(self, rest: str) -> None:
        for usage, what in COMMANDS.items():
            self.screen.note(f"{usage:<16} {what}")
        self.screen.note(f"Sampling keys: {', '.join(ChatKeys.model_fields)}.")

    @staticmethod
    def _refuse_more(command: str, rest: str) -> None:
        if rest:
            raise DataError(f"{command} takes nothing after it, and {rest[:40]!r} was given.")
