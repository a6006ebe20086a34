"""Which token ids of an answer are trained and scored: those that were sampled, else those of its text."""

import json
from collections.abc import Sequence

from alignment.data.masks import Answer, TrainedRow
from alignment.data.rows import Demonstration, Ranking
from alignment.data.sampled import KEY, Record, prompt_hash, tokenizer_hash
from alignment.data.template import Template
from alignment.errors import DataError
from alignment.meter import say_once
from alignment.strict_json import shown


class AnswerTokens:
    """The ids of prompts and answers as one tokenizer and chat template read them: sampled ones as they are."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self._own: tuple[str, str] | None = None
        self._kept = self._rendered = 0  # sampled answers
        self._others: dict[str, None] = {}  # what differs
        self._told = False

    def prompt_ids(self, ranking: Ranking) -> list[int]:
        """Return the ids that the answers continue: those in whose context they were sampled.

        Raises: DataError where the prompt was changed since, or cannot be written in tokens.
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

        Raises: DataError where the text is not that of the sampled ids, or cannot be written in tokens.
        """
        text, stopped = ranking.responses[index], ranking.stopped(index)
        for record in self._matching(ranking):
            if ids := record["response_ids"][index]:
                self._require_same(record["prompt_ids"], ids, text, stopped=stopped)
                self._kept += 1
                return list(ids)
        sampled = [record for record in ranking.provenance.get(KEY) or () if record["response_ids"][index]]
        if not sampled:
            return self.template.answer_ids(ranking.prompt, text, stop=stopped)
        self._rendered += 1
        tokenizer = any(record["tokenizer_sha256"] == self._hashes()[0] for record in sampled)
        self._others["chat template or stop tokens" if tokenizer else "tokenizer"] = None
        return self.template.sampled_ids(ranking.prompt, text, stop=stopped)

    def demonstrations(self, row: Demonstration) -> list[TrainedRow]:
        """Return the training rows of one demonstration, as `Template.demonstrations` does.

        Raises: DataError where the row cannot be written in tokens.
        """
        if row.sampled is None:
            return self.template.demonstrations(row)
        context, ids = self.prompt_ids(row.sampled), self.answer_ids(row.sampled, 0)
        return self.template.demonstrations(row, Answer(context, ids, ids))

    def tell(self) -> None:
        """Write once how many sampled answers were rendered from their text so far, where some were."""
        if self._rendered and not self._told:
            self._told = True
            say_once(
                f"rendered {self._rendered:,} of {self._rendered + self._kept:,} sampled answers from their text: they "
                f"were sampled with another {' and another '.join(self._others)}, so their tokens may differ from "
                "those that were sampled"
            )

    def counts(self) -> tuple[int, int, dict[str, None]]:
        """Return what `tell` counts, for `add`."""
        return self._kept, self._rendered, self._others

    def add(self, counts: tuple[int, int, dict[str, None]]) -> None:
        """Add what another process counted."""
        self._kept += counts[0]
        self._rendered += counts[1]
        self._others |= counts[2]

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
