"""Reading back what W&B keeps offline: LevelDB's log format, each record a protobuf message.

https://github.com/google/leveldb/blob/main/doc/log_format.md, after a header of 7 bytes.
"""

import json
import struct
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

HEADER, BLOCK = 7, 32_768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(file: Path) -> list[Any]:
    """Every whole record of a `run-ID.wandb`."""
    data = file.read_bytes()
    assert data[:4] == b":W&B"
    found, parts, at = [], b"", HEADER
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if kind == 0:
            break
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (FULL, LAST):
            found.append(Record.FromString(parts))
            parts = b""
    return found


class Kept:
    """What one or several starts of a run left in a W&B folder."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
        self.runs: list[Any] = []
        self.history: list[dict[str, Any]] = []
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.artifacts: list[Any] = []
        for file in self.files:
            for record in records(file):
                self._take(record)

    def _take(self, record: Any) -> None:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            self.runs.append(record.run)
            self.config |= _items(record.run.config.update)
        elif kind == "config":
            self.config |= _items(record.config.update)
        elif kind == "history":
            self.history.append(_items(record.history.item))
        elif kind == "summary":
            self.summary |= _items(record.summary.update)
        elif kind == "artifact" and record.artifact.type != "run_table":  # as tables travel
            self.artifacts.append(record.artifact)


def _items(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
