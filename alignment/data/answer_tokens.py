"""Which token ids of an answer are trained and scored: those that were sampled, else those of its text."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from alignment.data.masks import Answer, TrainedRow, rows_of
from alignment.data.rows import Demonstration, Ranking
from alignment.data.sampled import KEY, Record, prompt_hash, tokenizer_hash
from alignment.data.template import Template
from alignment.errors import DataError, printable
from alignment.meter import say_once
from alignment.strict_json import shown

_ASKS = re.compile(r"(?:^|\n|#\s*)(?:Human|User|Instruction)\s*:")
_ANSWERS = re.compile(r"(?:\n|#\s*)(?:Assistant|Response|AI|GPT)\s*:")


@dataclass
class Counts:
    """Counts of what `AnswerTokens` tokenised."""

    kept: int = 0  # sampled answers
    rendered: int = 0  # sampled answers whose text was tokenised again
    others: dict[str, None] = field(default_factory=dict)  # what has changed since these were sampled
    conversations: int = 0  # texts without a prompt that hold stop tokens
    added: str = ""  # of the first answer around which the chat template writes words, with its row


class AnswerTokens:
    """The token ids of prompts and answers for one tokenizer and chat template; sampled ids are kept."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self._own: tuple[str, str] | None = None
        self._counts = Counts()
        self._told = False

    def prompt_ids(self, ranking: Ranking) -> list[int]:
        """Return the ids that the answers continue: those in whose context they were sampled.

        Raises: DataError if the prompt was changed since, or cannot be written in tokens.
        """
        ids = self.template.prompt_ids(ranking.prompt)
        record = next(iter(self._matching(ranking)), None)
        if record is None or record["prompt_ids"] == ids:
            return ids
        # A chat template that writes the date renders the same prompt to other ids every day.
        if record["prompt_sha256"] != prompt_hash(ranking.prompt):
            raise DataError(
                "the prompt is not the one that its answers were sampled for (provenance.sampled_tokens); put it back "
                "as it was, or take sampled_tokens out of the provenance to train on the texts"
            )
        self._require_known(record["prompt_ids"], "prompt_ids")
        return list(record["prompt_ids"])

    def answer_ids(self, ranking: Ranking, index: int) -> list[int]:
        """Return the ids of an answer, the stop token included where it ended with one.

        Raises: DataError if the text is not that of the sampled ids, or cannot be written in tokens.
        """
        with self._noted(ranking.source):
            return self._answer_ids(ranking, index)

    def _answer_ids(self, ranking: Ranking, index: int) -> list[int]:
        text, stopped = ranking.responses[index], ranking.stopped(index)
        for record in self._matching(ranking):
            if ids := record["response_ids"][index]:
                self._require_same(record["prompt_ids"], ids, text, stopped=stopped)
                self._counts.kept += 1
                return list(ids)
        sampled = [record for record in ranking.provenance.get(KEY) or () if record["response_ids"][index]]
        if not sampled:
            from_field = ranking.reasoning_field(index)
            return self.template.answer_ids(ranking.prompt, text, stop=stopped, reasoning_field=from_field)
        self._counts.rendered += 1
        tokenizer = any(record["tokenizer_sha256"] == self._hashes()[0] for record in sampled)
        self._counts.others["chat template or stop tokens" if tokenizer else "tokenizer"] = None
        return self.template.sampled_ids(ranking.prompt, text, stop=stopped)

    def demonstrations(self, row: Demonstration) -> list[TrainedRow]:
        """Return the training rows of one demonstration, as `Template.demonstrations` does.

        Raises: DataError if the row cannot be written in tokens.
        """
        return rows_of(self.answers(row))

    def answers(self, row: Demonstration) -> list[Answer]:
        """Return the trained answers of one demonstration, as `Template.answers` does.

        Raises: DataError if the row cannot be written in tokens.
        """
        with self._noted(row.source):
            return self._answers(row)

    def _answers(self, row: Demonstration) -> list[Answer]:
        if row.sampled is None:
            found = self.template.answers(row)
            if row.prompt == "" and self._holds_turns(row.completion, found[0].labels):
                self._counts.conversations += 1
            return found
        context, ids = self.prompt_ids(row.sampled), self._answer_ids(row.sampled, 0)
        return self.template.answers(row, Answer(context, ids, ids))

    def _holds_turns(self, text: str, labels: Sequence[int]) -> bool:
        """Return whether a text is a rendered conversation: it has stop tokens, or headings of both speakers."""
        if not set(self.template.stop_token_ids).isdisjoint(labels[:-1]):
            return True
        asks = _ASKS.search(text)
        return asks is not None and _ANSWERS.search(text, asks.end()) is not None

    def tell(self) -> None:
        """Report the counts once: sampled answers that were rendered again, and texts of whole conversations."""
        if self._told or self._counts == Counts(kept=self._counts.kept):
            return
        self._told = True
        if self._counts.added:
            say_once(printable(self._counts.added))
        if self._counts.rendered:
            say_once(
                f"rendered {self._counts.rendered:,} of {self._counts.rendered + self._counts.kept:,} sampled answers "
                f"from their text: they were sampled with another {' and another '.join(self._counts.others)}, so "
                "their tokens may differ from those that were sampled"
            )
        if self._counts.conversations:
            say_once(
                f"{self._counts.conversations:,} rows of text hold conversations that were rendered beforehand: every "
                "token is trained, the user's too; give them as messages to train the assistant's answers alone"
            )

    def counts(self) -> Counts:
        """Return what `tell` writes, for `add`."""
        return self._counts

    def add(self, counts: Counts) -> None:
        """Add what another process counted."""
        self._counts.kept += counts.kept
        self._counts.rendered += counts.rendered
        self._counts.conversations += counts.conversations
        self._counts.added = self._counts.added or counts.added
        self._counts.others |= counts.others

    @contextmanager
    def _noted(self, source: str) -> Iterator[None]:
        """Take the words that the chat template writes around an answer of the row at `source`."""
        try:
            yield
        finally:
            if words := self.template.take_added_words():
                self._counts.added = f"{source}: {words}" if source else words

    def _hashes(self) -> tuple[str, str]:
        if self._own is None:
            self._own = tokenizer_hash(self.template.tokenizer), self.template.hash
        return self._own

    def _matching(self, ranking: Ranking) -> list[Record]:
        records = ranking.provenance.get(KEY) or ()
        return [
            record for record in records if (record["tokenizer_sha256"], record["template_sha256"]) == self._hashes()
        ]

    def _require_known(self, ids: Sequence[int], what: str) -> None:
        vocabulary = len(self.template.tokenizer)
        if ids and max(ids) >= vocabulary:
            raise DataError(
                f"provenance.sampled_tokens has the token id {max(ids)} in {what}, and the tokenizer has "
                f"{vocabulary:,} tokens; put the row back as it was, or take sampled_tokens out of the provenance"
            )

    def _require_same(self, prompt_ids: list[int], ids: list[int], text: str, *, stopped: bool) -> None:
        self._require_known([*prompt_ids, *ids], "prompt_ids and response_ids")
        stops = [place for place, token in enumerate(ids) if token in self.template.stop_token_ids]
        if stops != ([len(ids) - 1] if stopped else []):
            raise DataError(
                f"provenance.stopped is {json.dumps(stopped)} and its sampled tokens have "
                f"{len(stops)} stop tokens{', not at their end' if stopped and stops else ''}; put the row back as it "
                "was, or take sampled_tokens out of the provenance"
            )
        decoded = self.template.answer_text(prompt_ids, ids[:-1] if stopped else ids)
        if decoded != text:
            raise DataError(
                f"the answer {shown(text)} is not the text of its sampled tokens, {shown(decoded)}; put it back as it "
                "was, or take sampled_tokens out of the provenance to train on the text"
            )
