"""Scoring the rows of a file with a reward model."""

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignment.data.rows import Prompt
from alignment.errors import DataError, ModelError
from alignment.run.files import write_jsonl
from reward.scorers.reward_model import RewardScorer

ANSWER_KEYS = ("answer", "completion", "response")


def score_file(run: str | Path, file: str | Path, output: str | Path | None = None, *, batch_size: int = 64) -> None:
    """Write the rows of a JSONL file with their scores, to `output` whole or not at all, else to standard output.

    A row is `{"prompt": text or messages, "answer" | "completion" | "response": text}`, or `{"messages": [...]}` that
    ends with the assistant's answer.

    Raises: DataError naming file and line of the first bad row; ModelError where `run` is no reward model.
    """
    rows = list(_rows(Path(file)))
    if not Path(run).is_dir():
        raise ModelError(f"{run}: no such folder; name the run folder of a reward model.")
    scorer = RewardScorer.load(str(run), batch_size=batch_size)
    scores = scorer.score_tokens(
        [scorer.encode(prompt, answer, where=f"{file}:{number}") for number, _, prompt, answer in rows]
    )
    scored = [{**row, "score": score} for (_, row, _, _), score in zip(rows, scores, strict=True)]
    if output is not None:
        write_jsonl(output, scored)
    else:
        sys.stdout.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in scored)


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any], Prompt, str]]:
    """Line number, row, prompt and answer of each line.

    Raises: DataError naming file and line.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such file; name a JSONL file of prompts and answers.")
    opened = gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")
    empty = True
    with opened as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            empty = False
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise DataError(f"{file}:{number}: not UTF-8 (byte {error.start + 1} of the line).") from None
            except json.JSONDecodeError as error:
                raise DataError(f"{file}:{number}: not JSON ({error.msg} at character {error.pos + 1}).") from None
            prompt, answer = _prompt_and_answer(row, f"{file}:{number}")
            yield number, row, prompt, answer
    if empty:
        raise DataError(f"{file}: empty; it needs one JSON object a line.")


def _prompt_and_answer(row: Any, where: str) -> tuple[Prompt, str]:
    if not isinstance(row, dict):
        raise DataError(f"{where}: a {type(row).__name__}, but a row is a JSON object.")
    if "messages" in row:
        messages = _messages(row["messages"], f"{where}: messages")
        if messages[-1]["role"] != "assistant" or len(messages) < 2:
            raise DataError(f"{where}: messages must end with the assistant's answer to score.")
        return messages[:-1], messages[-1]["content"]
    keys = [key for key in ANSWER_KEYS if key in row]
    if "prompt" not in row or len(keys) != 1:
        raise DataError(
            f"{where}: has the keys {', '.join(row) or 'none'}; a row needs prompt and one of "
            f"{', '.join(ANSWER_KEYS)}, or messages."
        )
    answer = row[keys[0]]
    if not isinstance(answer, str) or not answer.strip():
        raise DataError(f"{where}: {keys[0]} is {json.dumps(answer)[:60]}, but an answer is text and not empty.")
    prompt = row["prompt"]
    return (prompt if isinstance(prompt, str) else _messages(prompt, f"{where}: prompt")), answer


def _messages(value: Any, where: str) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise DataError(f"{where} is {json.dumps(value)[:60]}; it must be text or a list of messages.")
    for message in value:
        parts = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if not all(isinstance(part, str) for part in parts):
            raise DataError(f"{where} holds {json.dumps(message)[:60]}; a message has a role and a content, both text.")
    return value
