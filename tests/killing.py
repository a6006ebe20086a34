"""Ends a stage's process at a chosen file event, so that every moment of a run can be tried and none is left to chance.

What lies on the disk changes at file events alone, and a killed process leaves nothing else. `arm` is called in the
process before the stage. It counts every event below the run's folder, notes each as a line in a log, and sends this
process a signal right before the chosen one.
"""

import contextlib
import functools
import json
import os
import re
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

NUMBER = re.compile(r"\d+")
TEMPORARY = re.compile(r"(\.[\w.-]+\.)[\w]{8}\.partial$")  # tempfile's
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
MACHINE = re.compile(  # what tells of the machine's speed and not of the model
    r"(eval_|train_)?(seconds_\w+|seconds|runtime|samples_per_second|steps_per_second|tokens_per_second)"
    r"|tokens_per_second|peak_memory_gib|started|finished|identifier"
)


class Moments:
    """Counts events, and ends the process at one of them."""

    def __init__(self, folder: str, log: str, at: int | None, number: int) -> None:
        self.folder, self.log, self.at, self.number = folder, log, at, number
        self.count = 0

    def pass_by(self, kind: str, path: Any, torn: Callable[[], None] | None = None) -> None:
        """Note an event below the folder; `torn` leaves what a kill in the middle of it leaves."""
        path = os.fsdecode(path)
        if not path.startswith(self.folder):
            return
        self.count += 1
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)  # outside the folder, so not counted
        os.write(descriptor, f"{kind} {path[len(self.folder) :].lstrip('/')}\n".encode())
        os.close(descriptor)
        if self.count == self.at:
            if torn is not None and self.number == signal.SIGKILL:
                torn()
            os.kill(os.getpid(), self.number)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's audit hook, which is called before the operation."""
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, str | bytes) and (set(mode or "") & set("wax+") or flags & WRITING):
                self.pass_by("write", path)
        elif event == "os.rename":
            self.pass_by("rename", arguments[1])
        elif event in ("os.remove", "os.rmdir", "os.mkdir", "os.truncate"):
            path = arguments[0]
            if isinstance(path, str | bytes) and not os.path.isabs(path):  # rmtree names entries by their folder
                folder = arguments[-1] if event != "os.mkdir" else arguments[2]
                path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path) if folder >= 0 else path
            if isinstance(path, str | bytes | os.PathLike):
                self.pass_by(event[3:], path)


def arm(folder: str, log: str, at: int | None = None, number: int = signal.SIGKILL) -> None:
    """Watch this process; `at` is the event, from 1, at which it gets the signal."""
    moments = Moments(folder, log, at, number)
    sys.addaudithook(moments.audit)
    # These write by compiled code, which Python's audit does not see.
    import safetensors.torch

    def announced(write: Callable[..., Any], kind: str, place: int) -> Callable[..., Any]:
        @functools.wraps(write)
        def writing(*arguments: Any, **keys: Any) -> Any:
            path = arguments[place] if len(arguments) > place else keys.get("f", keys.get("filename", ""))
            if isinstance(path, str | bytes | os.PathLike):
                moments.pass_by(kind, path, functools.partial(_half, write, arguments, keys, path))
            return write(*arguments, **keys)

        return writing

    class Watched(sqlite3.Connection):
        def execute(self, *arguments: Any) -> Any:
            moments.pass_by("sqlite", moments.folder + "/" + str(arguments[0]).partition(" ")[0])
            return super().execute(*arguments)

    sqlite3.connect = functools.partial(sqlite3.connect, factory=Watched)
    safetensors.torch.serialize_file = announced(safetensors.torch.serialize_file, "safetensors", 1)
    torch.save = announced(torch.save, "torch.save", 1)


def _half(write: Callable[..., Any], arguments: Any, keys: Any, path: Any) -> None:
    write(*arguments, **keys)
    os.truncate(path, os.path.getsize(path) // 2)


def moments_of(log: Path) -> list[str]:
    """The events that a run passed by, in order."""
    return log.read_text().splitlines() if log.is_file() else []


def window(moment: str) -> str:
    """The kind of an event: its step and a temporary name's random part left out."""
    return NUMBER.sub("#", TEMPORARY.sub(r"\1*", moment))


def windows(moments: list[str]) -> list[int]:
    """The events, counted from 1, that are the first or the last of their kind."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for place, moment in enumerate(moments, 1):
        first.setdefault(window(moment), place)
        last[window(moment)] = place
    return sorted({*first.values(), *last.values()})


def differences(straight: Path, killed: Path) -> list[str]:
    """What differs between two runs that were written at one place: files, bits, lines, results."""
    ours, theirs = ({file.relative_to(run) for file in run.rglob("*")} for run in (straight, killed))
    # SQLite shares a store's memory in such a file, and removes one that a kill left when the store is opened next.
    apart = [name for name in sorted(ours ^ theirs) if not name.name.endswith(".sqlite-shm")]
    found = [f"only one has {name}" for name in apart]
    for name in sorted(ours & theirs):
        if (straight / name).is_file() and (a := content(straight / name)) != (b := content(killed / name)):
            if not same(a, b):
                found.append(f"{name}: {_first_difference(a, b)}")
    return found


def content(file: Path) -> Any:
    """What a file says, without what tells of the machine's speed."""
    if file.suffix == ".sqlite":
        with contextlib.closing(sqlite3.connect(file)) as store:  # times, and the run's secret, are in the other tables
            return store.execute("SELECT * FROM samples").fetchall(), store.execute(
                "SELECT count(*) FROM calls"
            ).fetchall()
    if file.name in ("training_args.bin", "whole.json"):  # a pickle; sizes of files that hold times
        return None
    if file.suffix in (".pt", ".pth"):
        return Opaque(without_times(torch.load(file, weights_only=False)))
    if file.suffix == ".json":
        return Opaque(without_times(json.loads(file.read_text())))
    if file.suffix == ".jsonl":
        return Opaque([without_times(json.loads(line)) for line in file.read_text().split("\n") if line])
    if file.name == "README.md":
        return [
            line for line in file.read_text().split("\n") if not MACHINE.fullmatch(line.strip("| ").partition(" ")[0])
        ]
    return file.read_bytes()


class Opaque:
    """A value whose equality `same` decides, as tensors have none of their own."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and same(self.value, other.value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.value)


def without_times(value: Any) -> Any:
    """A value without keys of `MACHINE`."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if not (isinstance(k, str) and MACHINE.fullmatch(k))}
    return [without_times(entry) for entry in value] if isinstance(value, list) else value


def same(ours: Any, theirs: Any) -> bool:
    """Whether two things are equal to the bit."""
    if isinstance(ours, Opaque) and isinstance(theirs, Opaque):
        return same(ours.value, theirs.value)
    if isinstance(ours, torch.Tensor):
        return isinstance(theirs, torch.Tensor) and ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return isinstance(theirs, dict) and ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list | tuple):
        return isinstance(theirs, list | tuple) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, np.ndarray):
        return bool(np.array_equal(ours, theirs))
    return bool(ours == theirs) or (ours != ours and theirs != theirs)


def _first_difference(ours: Any, theirs: Any) -> str:
    if isinstance(ours, Opaque) and isinstance(theirs, Opaque):
        a, b = ours.value, theirs.value
        if isinstance(a, list) and isinstance(b, list):
            for place, (left, right) in enumerate(zip(a, b, strict=False), 1):
                if not same(left, right):
                    return f"line {place}: {_first_difference(Opaque(left), Opaque(right))}"
            return f"{len(a)} and {len(b)} lines"
        if isinstance(a, dict) and isinstance(b, dict):
            keys = [key for key in {**a, **b} if not same(a.get(key), b.get(key))]
            return "; ".join(f"{key}: {_first_difference(Opaque(a.get(key)), Opaque(b.get(key)))}" for key in keys)
        return f"{str(a)[:200]} and {str(b)[:200]}"
    return "other bytes"
