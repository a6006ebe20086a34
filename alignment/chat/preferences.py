"""The file of preferences: rows of the layout `ranking`, which `reward`, `dpo` and `kto` read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment.chat.answering import Answer
from alignment.chat.settings import ChatKeys
from alignment.data.readers import extension
from alignment.data.rows import Prompt
from alignment.data.sampled import KEY, Recorder
from alignment.errors import DataError, RecipeError
from alignment.json_lines import line_of, objects_of
from alignment.run.files import naming_the_disk, write_atomic

ANNOTATOR = "chat"  # in `provenance`: rows are opinions, which may differ on one prompt
TIE = "tie"


def require_jsonl(path: Path) -> None:
    """Refuse a file whose name is not that of JSON lines, by which the data readers know it.

    Raises: RecipeError.
    """
    if path.name.lower().endswith(".gz") or extension(path) != "jsonl":
        raise RecipeError([f"{path}: is written as JSON lines; name a file that ends in .jsonl"])
    if path.exists() and not path.is_file():
        raise RecipeError([f"{path}: is not a regular file; name another"])


class Preferences:
    """Appends rows to a file; the last one may be replaced as long as it ends the file."""

    def __init__(self, path: Path) -> None:
        """Name the file, which is made with the first row.

        Raises: RecipeError if it holds other rows, or its name is not that of JSON lines.
        """
        require_jsonl(path)
        self.path = path
        self._last = b""
        content = self._content()
        whole = content if content.endswith(b"\n") else content + b"\n"  # so that a line cut off is a fault
        for row in objects_of(whole, path):
            if not {"prompt", "responses", "pairs"} <= row.keys():
                raise RecipeError([f"{path}: holds rows without prompt, responses and pairs; name another file"])

    def _content(self) -> bytes:
        with naming_the_disk(self.path):
            return self.path.read_bytes() if self.path.exists() else b""

    def append(self, row: dict[str, Any], *, replaces: bool) -> None:
        """Append a row, or write it in place of the one appended before.

        Raises: DataError if the file has changed since; AlignmentError if it cannot be written.
        """
        content = self._content()
        if content and not content.endswith(b"\n"):
            content += b"\n"
        if replaces:
            if not content.endswith(self._last):
                raise DataError(f"{self.path}: has changed since the last preference; correct the row there.")
            content = content[: len(content) - len(self._last)]
        line = line_of(row).encode()
        write_atomic(self.path.resolve(), content + line)  # a link stays one
        self._last = line


def row_of(prompt: Prompt, answers: Sequence[Answer], choice: str, keys: ChatKeys) -> dict[str, Any]:
    """Return the row of a preference.

    Args:
        choice: the number of the preferred answer, from 1, or `tie`.

    Raises: DataError if there is no such answer, or the answers cannot be compared.
    """
    if len(answers) < 2:
        raise DataError("/prefer compares answers of several runs; start `alignment chat RUN RUN2`.")
    numbers = [str(place) for place in range(1, len(answers) + 1)]
    if choice not in (*numbers, TIE):
        raise DataError(f"/prefer {choice}: write one of {', '.join(numbers)}, or {TIE}.")
    for number, answer in zip(numbers, answers, strict=True):
        if not answer.ended:
            raise DataError(f"answer {number} was stopped by Ctrl-C; only whole answers are compared.")
        if not answer.text.strip():
            raise DataError(f"answer {number} has no words; nothing to compare.")
    pairs = _pairs(answers, None if choice == TIE else int(choice) - 1)
    if not pairs:
        raise DataError("the answers are the same text; nothing to prefer.")
    return {
        "prompt": prompt,
        "responses": [answer.text for answer in answers],
        "pairs": pairs,
        "provenance": {
            "annotator": ANNOTATOR,
            "policies": [answer.policy.path for answer in answers],
            "sampling": keys.model_dump(),
            "stopped": [answer.stopped for answer in answers],
            KEY: _records(prompt, answers),
        },
    }


def _pairs(answers: Sequence[Answer], best: int | None) -> list[dict[str, Any]]:
    """Return the comparisons of the best answer with each other one; without a best one, of all with each other."""
    count = range(len(answers))
    if best is None:
        compared = [(first, second) for first in count for second in count if first < second]
    else:
        compared = [(best, other) for other in count if other != best]
    found = {"probability": 0.5, "status": "tie"} if best is None else {"probability": 1.0, "status": "ok"}
    return [
        {"first": first, "second": second, **found}
        for first, second in compared
        if answers[first].text.strip() != answers[second].text.strip()
    ]


def _records(prompt: Prompt, answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Return the token ids of the answers, one record for each tokenizer and chat template."""
    records: list[dict[str, Any]] = []
    for place, answer in enumerate(answers):
        ids = [answer.ids if other == place else [] for other in range(len(answers))]
        record = Recorder(answer.policy.template).record(prompt, answer.prompt_ids, ids)
        kept = record.pop("response_ids")
        same = next(
            (each for each in records if {**each, "response_ids": None} == {**record, "response_ids": None}), None
        )
        if same is None:
            records.append({**record, "response_ids": kept})
        else:
            same["response_ids"][place] = kept[place]
    return records
