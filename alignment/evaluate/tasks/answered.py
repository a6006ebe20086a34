"""Requests of tasks that a policy has answered, kept in a file, so that an interrupted evaluation resumes."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from alignment.json_lines import line_of, objects_of

REQUESTS = "task_requests.jsonl"  # of an evaluation


class Answered:
    """The results of requests by key; a part of a batch is not kept, so a batch has the same rows when it is repeated.

    Args:
        path: of the file. policy: what decides a policy's answers: hashes of weights and template.
    """

    def __init__(self, path: Path, policy: Sequence[str]) -> None:
        self.path = path
        self.policy = list(policy)
        self._seen: dict[str, int] = {}
        self._known = self._read()

    def keys(self, kind: str, requests: Sequence[Any]) -> list[str]:
        """Return the keys of requests; a repeated one is another request, which is sampled again."""
        keys = []
        for request in requests:
            parts = json.dumps([self.policy, kind, request], default=str)
            number = self._seen[parts] = self._seen.get(parts, -1) + 1
            keys.append(hashlib.sha256(f"{number}:{parts}".encode("utf-8", "surrogatepass")).hexdigest())
        return keys

    def batch(self, keys: Sequence[str], answer: Callable[[], Sequence[Any]]) -> list[Any]:
        """Return the results of a batch: as kept if all are, else what `answer` computes, which is then kept."""
        if all(key in self._known for key in keys):
            return [self._known[key] for key in keys]
        found = list(answer())
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write("".join(line_of({"request": k, "result": v}) for k, v in zip(keys, found, strict=True)))
        self._known.update(zip(keys, found, strict=True))
        return found

    def _read(self) -> dict[str, Any]:
        """Read the results of an interrupted evaluation; an incomplete last line is removed from the file."""
        if not self.path.is_file():
            return {}
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)
        return {str(row.get("request")): row.get("result") for row in objects_of(content[:whole], self.path)}
