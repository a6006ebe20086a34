"""What a step's process is given and what it leaves: numbers, and numbers that have a limit."""

import argparse
import faulthandler
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu.results import write_json

STACKS_BEFORE = 3  # seconds before the end of a step that takes too long


class Findings:
    """What a step found so far; written after every number, so that a step that is ended leaves what it had."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = {"numbers": {}, "checks": []}

    def numbers(self, **found: Any) -> None:
        """Keep numbers, or tables of numbers, that have no limit."""
        self.content["numbers"] |= found
        self._write()

    def check(self, what: str, found: float, *, least: float | None = None, most: float | None = None) -> None:
        """Keep a number beside its limits; the step fails where it is outside or is not finite."""
        ok = math.isfinite(found) and (least is None or found >= least) and (most is None or found <= most)
        kept = found if math.isfinite(found) else str(found)  # JSON has no NaN
        self.content["checks"].append({"what": what, "found": kept, "least": least, "most": most, "ok": ok})
        self._write()

    def skip(self, reason: str) -> None:
        """Report that this machine cannot run the step."""
        self.content["skipped"] = reason
        self._write()

    def _write(self) -> None:
        write_json(self.path, self.content)


class Place:
    """Where a step runs: the device, the shared folder of models, the folder of its own."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.device: str = args.device
        self.models: Path = args.work / "models"
        self.own: Path = args.work / args.name
        self.pack: Path | None = args.pack
        self.own.mkdir(parents=True, exist_ok=True)

    @property
    def on_gpu(self) -> bool:
        """Whether it is the real thing: large shapes, and memory that can be measured."""
        return self.device == "cuda"


def run_step(do: Callable[[Place, Findings, str], None]) -> None:
    """Parse a step's command line and do it.

    Args:
        do: given the place, the findings and the step's variant, "" if it has none.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--found", type=Path, required=True)
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--variant", default="")
    parser.add_argument("--seconds", type=float, help="after which the runner ends this process")
    args = parser.parse_args()
    if args.seconds:  # where it was, in the log
        faulthandler.dump_traceback_later(max(1.0, args.seconds - STACKS_BEFORE))
    do(Place(args), Findings(args.found), args.variant)
    sys.stdout.flush()
