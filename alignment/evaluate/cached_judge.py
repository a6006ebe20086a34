"""A judge whose verdicts are cached in a file, so that a restarted evaluation sends each question once."""

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

from alignment.errors import AlignmentError, JudgeError
from alignment.evaluate.judging import Comparison, Judge, Mode, Verdict
from alignment.json_lines import line_of, objects_of, read_ours
from alignment.strict_json import shown

VERDICTS = "verdicts.jsonl"  # of an evaluation
KEPT = frozenset({"ok", "tie", "abstain"})  # statuses of verdicts; a question that failed is sent again


def only_failures(folder: Path) -> frozenset[str]:
    """Return the name of a folder's verdicts if all of them failed, so that nothing is lost with the file."""
    try:
        failed = all(row.get("status") not in KEPT for row in read_ours(folder / VERDICTS))
    except AlignmentError:  # it is damaged, and may hold verdicts
        failed = False
    return frozenset({VERDICTS} if failed else ())


class CachedJudge:
    """Writes every verdict of `judge` to a JSONL file, one object a line, and reads verdicts from there first.

    The file is also the evidence: it has the judge, the prompt, the answers in the order shown, and the raw reply.
    """

    mode: Mode = "pairwise"

    def __init__(self, judge: Judge[Comparison], path: Path) -> None:
        self.judge = judge
        self.name = judge.name
        self.prompt_hash = judge.prompt_hash
        self.path = path
        self._lock = threading.Lock()
        self._known = self._read()

    def ask(self, comparison: Comparison) -> Verdict:
        """Return the cached verdict; without one, call the judge and write its verdict."""
        key = self._key(comparison)
        known = self._known.get(key)
        if known is not None:
            return known
        verdict = self.judge.ask(comparison)
        row = {
            "question": key,
            "judge": self.name,
            "prompt": comparison.prompt,
            "first": comparison.first,
            "second": comparison.second,
            "probability": verdict.probability,
            "status": verdict.status,
            "raw": verdict.raw,
            "details": verdict.details,
        }
        line = line_of(row, default=str)
        with self._lock, self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(line)
        if verdict.status in KEPT:
            self._known[key] = verdict
        return verdict

    def _key(self, comparison: Comparison) -> str:
        """Identify a question: the judge, its prompt template, and what it is shown in which order."""
        parts = [self.name, self.prompt_hash, comparison.prompt, comparison.first, comparison.second]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()

    def _read(self) -> dict[str, Verdict]:
        """Read the verdicts of an interrupted evaluation; an incomplete last line is removed from the file."""
        known: dict[str, Verdict] = {}
        if not self.path.is_file():
            return known
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)
        for number, row in enumerate(objects_of(content[:whole], self.path), 1):
            if row.get("judge") == self.name and row.get("status") in KEPT:
                known[str(row.get("question"))] = self._verdict(row, number)
        return known

    def _verdict(self, row: dict[str, Any], number: int) -> Verdict:
        """Return the verdict of a row.

        Raises: JudgeError if the row holds no valid verdict.
        """
        probability, status, details = row.get("probability"), row["status"], row.get("details")
        judged = isinstance(probability, int | float) and not isinstance(probability, bool) and 0 <= probability <= 1
        if (not judged if status != "abstain" else probability is not None) or not isinstance(details, dict):
            raise JudgeError(
                f"{self.path}: row {number} is not a verdict (status {shown(status)}, probability {shown(probability)})"
                "; the file was edited or damaged. Remove the row to send the question again."
            )
        return Verdict(None if probability is None else float(probability), status, str(row.get("raw", "")), details)
