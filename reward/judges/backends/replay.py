"""A judge that returns recorded verdicts."""

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from alignment.calls.call import CallContext, ChatReply
from alignment.calls.caller import Caller
from alignment.config.schema import DatasetEntry
from alignment.config.schema.judges import ReplayEntry
from alignment.data import load_rankings
from alignment.data.rows import USABLE, Prompt, SingleVerdict, Status
from alignment.data.splits import prompt_key
from alignment.errors import DataError, JudgeError
from alignment.evaluate.judging import Comparison, Mode, Verdict
from reward.labels.files import LABELS
from reward.labels.recordings import is_recording, read_recording

Key = tuple[str, str, str, int]  # prompt, answer shown first, answer shown second, repeat


@dataclass(frozen=True, slots=True)
class RecordedVerdict:
    """One recorded verdict."""

    asked: SingleVerdict
    raw: str = ""  # the judge's reply, if it was recorded


class ReplayJudge:
    """Looks up the verdict on the same answers in the same order; a question without a record is a failed call."""

    mode: Mode = "pairwise"

    def __init__(
        self, name: str, path: str, prompt_hash: str, verdicts: dict[Key, RecordedVerdict], caller: Caller
    ) -> None:
        self.name = name
        self.path = path
        self.prompt_hash = prompt_hash  # of the file: the prompt was not recorded
        self.verdicts = verdicts
        self.caller = caller

    @classmethod
    def from_entry(cls, entry: ReplayEntry, caller: Caller) -> "ReplayJudge":
        """Read the recorded verdicts: a result file of LLMBar's evaluators, or rankings whose pairs have `verdicts`.

        Raises: JudgeError if there are none, or a question has two different verdicts.
        """
        path = Path(entry.path)
        try:
            if is_recording(path):
                recording = read_recording(path)
                name, digest = recording.name, recording.sha256
                found = [
                    (row.prompt, row.first, row.second, RecordedVerdict(asked, raw))
                    for row in recording.rows
                    for asked, raw in zip(row.verdicts, row.raw, strict=True)
                ]
            else:
                file = path / LABELS if path.is_dir() else path
                found, name = list(_labelled(file)), str(path)
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
        except (DataError, OSError) as error:
            raise JudgeError(f"judge.path {path}: {error}") from error
        if not found:
            raise JudgeError(
                f"judge.path {path}: has no recorded verdicts; name the labels.jsonl of a label run with a pairwise "
                "judge, or a result.json of LLMBar's evaluators."
            )
        verdicts: dict[Key, RecordedVerdict] = {}
        for prompt, first, second, recorded in found:
            shown = (first, second) if recorded.asked.shown == "first" else (second, first)
            before = verdicts.setdefault((prompt_key(prompt), *shown, recorded.asked.repeat), recorded)
            if (before.asked.probability, before.asked.status) != (recorded.asked.probability, recorded.asked.status):
                raise JudgeError(
                    f"judge.path {path}: has two verdicts on the same question (prompt {str(prompt)[:80]!r}); name the "
                    "labels of one judge."
                )
        return cls(entry.name or name, str(path), digest, verdicts, caller)

    def ask(self, comparison: Comparison) -> Verdict:
        """Return the recorded verdict."""
        request = {
            "recording": self.prompt_hash,
            "prompt": comparison.prompt,
            "answers": [comparison.first, comparison.second],
        }
        context = CallContext(self.name, self.prompt_hash, comparison)
        reply = self.caller.call(context, request, lambda: self._look_up(comparison))
        if reply.status != "ok":
            return Verdict(None, reply.status, reply.raw)
        asked = _asked(reply.details.get("recorded"))
        if asked is None:  # a row of the store that was edited
            return Verdict(None, "parse_error", reply.raw)
        details = {"mass": asked.mass} if asked.mass is not None else {}
        return Verdict(asked.probability, asked.status, reply.raw, details)

    def _look_up(self, comparison: Comparison) -> ChatReply:
        key = (prompt_key(comparison.prompt), comparison.first, comparison.second, comparison.repeat)
        recorded = self.verdicts.get(key)
        if recorded is None:
            again = f" for repeat {comparison.repeat}" if comparison.repeat else ""
            return ChatReply("api_error", f"{self.path} has no verdict on these answers in this order{again}")
        details = {"recorded": dataclasses.asdict(recorded.asked)}
        return ChatReply("ok", recorded.raw, recorded.raw, details=details)


build = ReplayJudge.from_entry


def _asked(kept: Any) -> SingleVerdict | None:
    """Return a recorded question; None if the value is not one."""
    if not isinstance(kept, dict) or kept.keys() != {"shown", "repeat", "probability", "status", "mass"}:
        return None
    shares = [kept["probability"], kept["mass"]]
    numbers = all(share is None or (type(share) in (int, float) and 0.0 <= share <= 1.0) for share in shares)
    usable = (kept["status"] in USABLE) == (kept["probability"] is not None)
    return SingleVerdict(**kept) if numbers and usable and kept["status"] in get_args(Status) else None


def _labelled(file: Path) -> Iterator[tuple[Prompt, str, str, RecordedVerdict]]:
    """Yield every asking behind every pair of a file of rankings."""
    loaded = load_rankings([DatasetEntry(path=str(file))], on_bad_row="stop", seed=0)
    for row in loaded.rows:
        for pair in row.pairs:
            for asked in pair.verdicts:
                yield row.prompt, row.responses[pair.first], row.responses[pair.second], RecordedVerdict(asked)
