"""The token ids of sampled answers: token in, token out.

A text may have several spellings in tokens, and a tokenizer gives one of them. So an answer that a policy sampled keeps
its ids beside its text, in `provenance.sampled_tokens`, and is trained and scored on exactly these. It is rendered from
its text only where tokenizer or chat template are others than those it was sampled with.

`sampled_tokens` is a list with one record for each tokenizer, chat template and context that sampled:

    tokenizer_sha256, template_sha256   what the ids belong to
    prompt_sha256                       of the prompt as text or messages
    prompt_ids                          the ids that the answers continue
    response_ids                        for each response its ids, the stop token where one was sampled; [] where the
                                        response was not sampled in this way
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignment.data.fields import BadRow, kind_of
from alignment.data.rows import POLICIES, REASONING_FIELD, Prompt, Ranking
from alignment.strict_json import shown

if TYPE_CHECKING:
    from alignment.data.template import Template
    from alignment.rollout.engine import Completion

KEY = "sampled_tokens"  # in `provenance`
HASHES = ("tokenizer_sha256", "template_sha256", "prompt_sha256")
LARGEST_ID = 2**31 - 1
Record = Mapping[str, Any]


def tokenizer_hash(tokenizer: Any) -> str:
    """Return the SHA-256 of what turns text into ids."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    for setting in ("padding", "truncation"):  # of the last call, not of the tokenizer
        backend.pop(setting, None)
    return hashlib.sha256(json.dumps(backend, sort_keys=True).encode()).hexdigest()


def prompt_hash(prompt: Prompt) -> str:
    """Return the SHA-256 of a prompt as text or messages."""
    return hashlib.sha256(json.dumps(prompt, sort_keys=True).encode()).hexdigest()


class Recorder:
    """Makes the records of one policy's answers."""

    def __init__(self, template: "Template") -> None:
        self._vocabulary = len(template.tokenizer)
        self._of_policy = {
            "tokenizer_sha256": tokenizer_hash(template.tokenizer),
            "template_sha256": template.hash,
        }

    def record(self, prompt: Prompt, prompt_ids: list[int], response_ids: Sequence[list[int]]) -> dict[str, Any]:
        """Return the record of one prompt's answers; ids that the tokenizer does not have are not kept."""
        kept = [ids if max(ids, default=0) < self._vocabulary else [] for ids in response_ids]
        context = {"prompt_sha256": prompt_hash(prompt), "prompt_ids": prompt_ids, "response_ids": kept}
        return {**self._of_policy, **context}

    def records(
        self, prompts: Sequence[Prompt], prompt_ids: Sequence[list[int]], completions: Sequence["Completion"]
    ) -> list[dict[str, Any]]:
        """Make the record of each answer alone."""
        sampled = zip(prompts, prompt_ids, completions, strict=True)
        return [self.record(prompt, ids, [completion.ids]) for prompt, ids, completion in sampled]


def is_sampled(provenance: Any) -> bool:
    """Whether a row's provenance shows that a policy sampled its responses."""
    return isinstance(provenance, Mapping) and bool(provenance.get(KEY) or provenance.get("stopped"))


def require_records(records: Any, count: int) -> None:
    """Check what a row of data holds as `provenance.sampled_tokens`.

    Raises: BadRow.
    """
    what = f"'provenance.{KEY}'"
    if records is None:
        return
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise BadRow(f"{what} is {kind_of(records)}, not a list of records")
    for place, record in enumerate(records):
        where = f"'provenance.{KEY}[{place}]"
        for key in HASHES:
            if not isinstance(record.get(key), str):
                raise BadRow(f"{where}.{key}' is {kind_of(record.get(key))}, not the text of a hash")
        _require_ids(record.get("prompt_ids"), f"{where}.prompt_ids'")
        responses = record.get("response_ids")
        if not isinstance(responses, list) or len(responses) != count:
            found = f"of length {len(responses)}" if isinstance(responses, list) else kind_of(responses)
            raise BadRow(
                f"{where}.response_ids' is {found}; it needs one list of ids for each of the {count} responses"
            )
        for index, ids in enumerate(responses):
            _require_ids(ids, f"{where}.response_ids[{index}]'")


def _require_ids(ids: Any, what: str) -> None:
    if not isinstance(ids, list):
        raise BadRow(f"{what} is {kind_of(ids)}, not a list of token ids")
    for token in ids:
        if type(token) is not int or not 0 <= token <= LARGEST_ID:
            raise BadRow(f"{what} holds {shown(token)}, which is not a token id")


def of_answers(provenance: Mapping[str, Any], places: Sequence[int | None]) -> dict[str, Any]:
    """Return what a row's provenance holds of some of its responses: policy, end, reasoning and ids of each.

    Args:
        places: of the responses in the row; None for an answer that was not sampled.
    """
    found: dict[str, Any] = {}
    stopped, fields, records = (provenance.get(key) for key in ("stopped", REASONING_FIELD, KEY))
    names = provenance.get(POLICIES)
    if names is not None and None not in places:
        found[POLICIES] = [names[place] for place in places if place is not None]
    if stopped is not None:
        found["stopped"] = [True if place is None else stopped[place] for place in places]
    if fields is not None:
        found[REASONING_FIELD] = [place is not None and fields[place] for place in places]
    if records:
        of_places = [
            {**record, "response_ids": [[] if place is None else record["response_ids"][place] for place in places]}
            for record in records
        ]
        found[KEY] = [record for record in of_places if any(record["response_ids"])]
    return found


def records_of(ranking: Ranking, place: int) -> list[dict[str, Any]]:
    """Return the records of one response alone."""
    records: list[dict[str, Any]] = of_answers(ranking.provenance, [place]).get(KEY, [])
    return records
