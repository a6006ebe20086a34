"""The one stop token that ends a trained answer; answers that spell one earlier, or have no words, are refused."""

from collections.abc import Mapping, Sequence
from typing import Any

from alignment.data.answers import behind_thought
from alignment.data.chat import CONTROL_ALONE, EMPTY
from alignment.data.control import ControlTokens
from alignment.data.masks import NotWritten
from alignment.data.stops import Stops
from alignment.errors import DataError
from alignment.strict_json import shown


class AnswerEnds:
    """Ends answers with the stop tokens of one tokenizer and its chat template."""

    def __init__(self, tokenizer: Any, stops: Stops, control: ControlTokens) -> None:
        self._tokenizer = tokenizer
        self._control = control
        self.stops = stops

    @property
    def of_turn(self) -> int:
        """Return the token that ends an answer to messages."""
        return self.stops.eos if self.stops.turn_end is None else self.stops.turn_end

    def ended(self, ids: list[int], end: int, *, stop: bool, text: str = "") -> list[int]:
        """Return an answer's ids with one stop token at their end, or without.

        Raises: DataError if a stop token stands before the end, or `text` has nothing else.
        """
        while ids and ids[-1] in self.stops.ids:
            end = ids[-1] if ids[-1] == self.stops.turn_end else end  # as the answer was rendered beforehand
            ids = ids[:-1]
        if text.strip() and not ids:
            raise DataError(EMPTY.format(text))
        inner = next((token for token in ids if token in self.stops.ids), None)
        if inner is not None:
            raise self._stop_inside(self._tokenizer.convert_ids_to_tokens(inner))
        return [*ids, end] if stop else ids

    def refuse_spelled(self, content: str, stops: Sequence[str], hidden: Mapping[str, str]) -> None:
        """Refuse an answer that spells a stop token; hidden behind a stand-in it would be learned as text."""
        spelled = next((text for stand_in, text in hidden.items() if stand_in in content and text in stops), None)
        if spelled is not None:
            raise self._stop_inside(spelled)

    def require_words(self, answer: str, hidden: Mapping[str, str] | None = None, *, calls: bool = False) -> None:
        """Refuse an answer, behind its thought, that spells control tokens and nothing else."""
        if not calls and self._control.is_bare(behind_thought(answer)):
            text = "".join((hidden or {}).get(letter, letter) for letter in behind_thought(answer))
            raise NotWritten(CONTROL_ALONE.format(shown(text.strip())))

    @staticmethod
    def _stop_inside(token: str) -> DataError:
        return DataError(
            f"an answer holds the stop token {token!r} before its end, so a model would learn to stop there; take it "
            "out of the text, or give a conversation that was rendered beforehand as messages, turn by turn."
        )
