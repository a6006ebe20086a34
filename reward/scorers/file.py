"""Scoring the rows of a file with a reward model."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.data.conversations import messages_of
from alignment.data.fields import BadRow, keys_of, kind_of
from alignment.data.rows import Message, Prompt
from alignment.data.stored import ROW_BYTES, Stored
from alignment.errors import DataError, JsonError, printable
from alignment.json_lines import line_of
from alignment.run.files import write_jsonl
from alignment.strict_json import parse, shown
from reward.scorers.ensemble import Ensemble

ANSWER_KEYS = ("answer", "completion", "response", "responses")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file."""

    where: str  # "file:line"
    value: dict[str, Any]
    prompt: Prompt
    answers: list[str]

    @property
    def several(self) -> bool:
        """Whether it has a list of answers, and gets a list of scores."""
        return "responses" in self.value and "messages" not in self.value


def score_file(model: str | Path, file: str | Path, output: str | Path | None = None, **options: Any) -> None:
    """Write the rows of a JSONL file with their scores, to `output` whole or not at all, else to standard output.

    A row is `{"prompt": text or messages, "answer" | "completion" | "response": text}`, or `{"messages": [...]}` that
    ends with the assistant's answer, and gets a `score`; or it has `"responses": [text, ...]` and gets `scores`. An
    ensemble adds `score_std` or `score_stds`, how far its members differ.

    Args:
        model: what `Ensemble.load` takes, as are the options.

    Raises: DataError naming file and line of the first bad row; ModelError where `model` is no reward model.
    """
    rows = list(_rows(Path(file)))
    scorer = Ensemble.load(str(model), **options)
    encoded = [scorer.encode(row.prompt, answer, where=row.where) for row in rows for answer in row.answers]
    told = scorer.each(encoded)
    scores, spread = iter(scorer.one(told)), iter(told.std(0, correction=0).tolist())
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


def _rows(file: Path) -> Iterator[Row]:
    """Read each line.

    Raises: DataError naming file and line.
    """
    if not file.exists():
        raise DataError(f"{file}: no such file; name a JSONL file of prompts and answers.")
    empty = True
    with Stored(file) as stored:
        for number, line in stored.lines():
            where = f"{file}:{number}"
            if line is None:
                raise DataError(f"{where}: the row has more than {ROW_BYTES:,} bytes.")
            if line.strip():
                empty = False
                yield _row(_value(line, where), where)
    if empty:
        raise DataError(f"{file}: empty; it needs one JSON object a line.")


def _value(line: bytes, where: str) -> Any:
    try:
        return parse(line)
    except JsonError as error:
        raise DataError(f"{where}: {error}.") from None


def _row(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{where}: the row is {kind_of(row)}, not an object with named fields.")
    if "messages" in row:
        messages = _messages(row, "messages", where)
        if messages[-1]["role"] != "assistant" or len(messages) < 2 or not messages[-1]["content"].strip():
            raise DataError(f"{where}: messages must end with the assistant's answer to score.")
        return Row(where, row, messages[:-1], [messages[-1]["content"]])
    keys = [key for key in ANSWER_KEYS if key in row]
    if "prompt" not in row or len(keys) != 1:
        raise DataError(
            f"{where}: has the keys {keys_of(row)}; a row needs prompt and one of "
            f"{', '.join(ANSWER_KEYS)}, or messages."
        )
    several = keys[0] == "responses"
    answers = row[keys[0]] if several else [row[keys[0]]]
    if not isinstance(answers, list) or not answers:
        raise DataError(f"{where}: responses is {shown(answers)}; it must be a list of answers.")
    for answer in answers:
        if not isinstance(answer, str) or not (several or answer.strip()):  # among several a policy may say nothing
            raise DataError(f"{where}: {keys[0]} is {shown(answer)}, but an answer is text and not empty.")
    if several and "scores" in row:
        raise DataError(f"{where}: has scores already, which would be written over; rename or remove them.")
    prompt = row["prompt"]
    return Row(where, row, prompt if isinstance(prompt, str) else _messages(row, "prompt", where), answers)


def _messages(row: dict[str, Any], key: str, where: str) -> list[Message]:
    """Return messages as every stage reads them; a call of a tool is kept as its text.

    Raises: DataError naming file and line.
    """
    try:
        return messages_of(row, key)
    except BadRow as error:
        raise DataError(printable(f"{where}: {error}.")) from None
