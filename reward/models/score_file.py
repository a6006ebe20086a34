"""Scores the rows of a file with a reward model."""

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alignment.data.answers import require_readable, text_of_answer
from alignment.data.calls import tools_of
from alignment.data.columns import require_seen, without
from alignment.data.conversations import carrying_tools, messages_of, split_answer, with_system
from alignment.data.fields import BadRow, keys_of, kind_of, optional_text
from alignment.data.keys import unread
from alignment.data.layouts import Only
from alignment.data.rankings import prompt_of, provenance_of
from alignment.data.rows import REASONING_FIELD, Prompt, Ranking
from alignment.data.stored import ROW_BYTES, Stored
from alignment.data.turns import refuse_missing_turns
from alignment.errors import DataError, JsonError, printable
from alignment.json_lines import line_of
from alignment.run.files import write_jsonl
from alignment.strict_json import parse, shown
from reward.models.ensemble import Encoded, Ensemble

ANSWER_KEYS = ("answer", "completion", "response", "responses")
AROUND = ("system", "tools")  # keys that precede the prompt
RECORDED = ("pairs", "ranks")  # of labels: comparisons of the answers, which do not affect scores


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file."""

    where: str  # "file:line"
    value: dict[str, Any]
    prompt: Prompt
    answers: list[str]
    provenance: dict[str, Any] = field(default_factory=dict)  # whether each answer ended, its tokens and reasoning
    several: bool = False  # it has a list of answers and gets a list of scores

    def encoded(self, scorer: Ensemble) -> list[Encoded]:
        """Return the ids of each answer with its prompt."""
        of = Ranking(self.prompt, self.answers, [], self.provenance, self.where)
        return [scorer.encode_answer(of, place, where=self.where) for place in range(len(self.answers))]


def score_file(
    model: str | Path | Sequence[str],
    file: str | Path,
    output: str | Path | None = None,
    *,
    ignored: Collection[str] = (),
    **options: Any,
) -> None:
    """Write the rows of a JSONL file with their scores, atomically to `output`, or to standard output.

    A row is `{"prompt": text or messages, "answer" | "completion" | "response": text}`, or `{"messages": [...]}` that
    ends with the assistant's answer, and gets a `score`; or it has `"responses": [text, ...]` and gets `scores`. An
    ensemble adds `score_std` or `score_stds`, the standard deviation over its members. `system` and `tools` precede the
    prompt. All other keys of a row are kept.

    Args:
        ignored: keys of rows and messages that are not read. model: what `Ensemble.load` takes, as are the options.

    Raises: DataError with file and line of the first bad row; ModelError if `model` is not a reward model.
    """
    rows = list(_rows(Path(file), ignored))
    scorer = Ensemble.load(str(model) if isinstance(model, Path) else model, **options)
    encoded = [ids for row in rows for ids in row.encoded(scorer)]
    by_member = scorer.member_scores(encoded)
    scores, spread = iter(scorer.aggregated(by_member)), iter(by_member.std(0, correction=0).tolist())
    scored = []
    for row in rows:
        found = {"score": [next(scores) for _ in row.answers]}
        if len(scorer.members) > 1:
            found["score_std"] = [next(spread) for _ in row.answers]
        many, one = {f"{key}s": numbers for key, numbers in found.items()}, {key: n[0] for key, n in found.items()}
        scored.append(row.value | (many if row.several else one))
    if output is not None:
        write_jsonl(output, scored)
    else:
        sys.stdout.writelines(map(line_of, scored))


def _rows(file: Path, ignored: Collection[str]) -> Iterator[Row]:
    """Read each line.

    Raises: DataError with file and line.
    """
    if not file.exists():
        raise DataError(f"{file}: no such file; name a JSONL file of prompts and answers.")
    empty, seen = True, set[str]()
    with Stored(file) as stored:
        for number, line in stored.lines():
            where = f"{file}:{number}"
            if line is None:
                raise DataError(f"{where}: the row has more than {ROW_BYTES:,} bytes.")
            if line.strip():
                empty = False
                yield _row(_value(line, where), where, frozenset(ignored), seen)
    if empty:
        raise DataError(f"{file}: empty; it needs one JSON object a line.")
    require_seen(ignored, seen, str(file))


def _value(line: bytes, where: str) -> Any:
    try:
        return parse(line)
    except JsonError as error:
        raise DataError(f"{where}: {error}.") from None


def _row(row: Any, where: str, ignored: frozenset[str], seen: set[str]) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{where}: the row is {kind_of(row)}, not an object with named fields.")
    read = without(row, ignored, seen)
    try:
        found = _conversation(read, where) if "messages" in read else _answered(read, where)
        if found.several and "scores" in row:
            raise BadRow("has scores already, which would be overwritten; rename or remove them")
        refuse_missing_turns(Only(found.prompt))
        return replace(found, value=row)
    except BadRow as error:
        raise DataError(printable(f"{where}: {error}.")) from None


def _conversation(row: dict[str, Any], where: str) -> Row:
    _refuse_unread(row, ("messages", *AROUND))
    messages = with_system(messages_of(row, "messages"), optional_text(row, "system"))
    prompt, answer = split_answer(messages, "'messages'")
    text = text_of_answer(answer)
    reasoned = "reasoning" in answer
    if reasoned:
        require_readable(text, "the answer")
    provenance = {REASONING_FIELD: [True]} if reasoned else {}
    return Row(where, row, carrying_tools(prompt, tools_of(row)), [text], provenance)


def _answered(row: dict[str, Any], where: str) -> Row:
    keys = [key for key in ANSWER_KEYS if key in row]
    if "prompt" not in row or len(keys) != 1:
        raise BadRow(
            f"has the keys {keys_of(row)}; a row needs prompt and one of {', '.join(ANSWER_KEYS)}, or messages"
        )
    _refuse_unread(row, ("prompt", keys[0], *AROUND, *RECORDED, "provenance"))
    several = keys[0] == "responses"
    answers = row[keys[0]] if several else [row[keys[0]]]
    if not isinstance(answers, list) or not answers:
        raise BadRow(f"responses is {shown(answers)}; it must be a list of answers")
    for answer in answers:
        if not isinstance(answer, str) or not (
            several or answer.strip()
        ):  # a sampled answer among several may be empty
            raise BadRow(f"{keys[0]} is {shown(answer)}, but an answer must be non-empty text")
    provenance = provenance_of(row, len(answers)) if several else {}
    return Row(where, row, prompt_of(row), answers, provenance, several)


def _refuse_unread(row: dict[str, Any], reads: Sequence[str]) -> None:
    """Refuse unknown keys that look like content, because the score would not include them."""
    if keys := unread(row, reads):
        raise BadRow(
            f"{', '.join(map(shown, keys))}: not read; a row has prompt and one of {', '.join(ANSWER_KEYS)}, or "
            f"messages, and perhaps {' and '.join(AROUND)}. To score without, set --ignore_columns {','.join(keys)}"
        )
