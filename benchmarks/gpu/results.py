"""The one results file: what each step found, whether it passed, and why not.

    {"device": {...}, "versions": {...}, "seconds": ..., "steps": {NAME: {"status": ..., "numbers": ..., ...}}}

Every step is in it from the start as not run, and the file is replaced atomically, so it can be read at any moment,
also of a run that was ended from outside.
"""

import json
import os
from pathlib import Path
from typing import Any

PASSED, FAILED, SKIPPED, NOT_RUN = "passed", "failed", "skipped", "not run"
NAME = "results.json"


class Results:
    """A results file that is written after every change."""

    def __init__(self, path: Path, titles: dict[str, str], **facts: Any) -> None:
        """Begin a file in which no step has run."""
        self.path = path
        steps = {name: {"title": title, "status": NOT_RUN} for name, title in titles.items()}
        self.content: dict[str, Any] = {**facts, "steps": steps}
        path.parent.mkdir(parents=True, exist_ok=True)
        self.write()

    def note(self, **facts: Any) -> None:
        """Set fields of the whole run."""
        self.content |= facts
        self.write()

    def step(self, name: str, status: str, **found: Any) -> None:
        """Set what became of a step."""
        step = self.content["steps"][name]
        self.content["steps"][name] = {"title": step["title"], "status": status, **found}
        self.write()

    @property
    def failed(self) -> list[str]:
        """Names of steps that failed or were not reached."""
        return [name for name, step in self.content["steps"].items() if step["status"] in (FAILED, NOT_RUN)]

    def write(self) -> None:
        """Replace the file."""
        write_json(self.path, self.content)


def write_json(path: Path, content: Any) -> None:
    """Write a file that is never half there."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)


def judged(code: int | None, seconds_allowed: float, found: dict[str, Any], last_line: str) -> tuple[str, str]:
    """Return a step's status and the reason for it, "" if it passed.

    Args:
        code: the exit status of its process; None: it was ended after `seconds_allowed`.
        found: what the step wrote, in parts where it did not come to its end.
        last_line: of its log.
    """
    if code is None:
        return FAILED, f"ended after {seconds_allowed:.0f} s, its limit; last line of its log: {last_line}"
    if code != 0:
        return FAILED, last_line or f"exit code {code}"
    if found.get("skipped"):
        return SKIPPED, str(found["skipped"])
    wrong = [check["what"] for check in found.get("checks", []) if not check["ok"]]
    if wrong:
        return FAILED, f"outside its limit: {'; '.join(wrong)}"
    if not found.get("checks") and not found.get("numbers"):
        return FAILED, "the step ended without a result"
    return PASSED, ""
