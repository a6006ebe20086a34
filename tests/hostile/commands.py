"""Runs `alignment` with any words, hundreds of times: one process imports everything, a fork of it runs each command.

A command behaves as it does alone, since a fork shares nothing that it changes, and takes tenths of a second instead of
the many seconds of the imports.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What the verbs import when they run; a module that is not here is only slower.
IMPORTED = """
import importlib, os, sys
for name in (
    "alignment.cli", "alignment.config", "alignment.pipeline.runner", "alignment.planner.command", "alignment.report",
    "alignment.doctor.command", "alignment.preview.page", "reward.preview",
    "alignment.launch.command", "alignment.policy.merge", "alignment.policy.switch_merged", "alignment.policy.combine",
    "reward.scorers", "transformers",
    "reward.bench.command", "reward.audit.command", "reward.audit.gate", "reward.people.serve", "reward.people.mix",
    "reward.serving.serve", "alignment.serving.server", "reward.people.app", "reward.serving.app", "recipes.sft",
    "recipes.label", "recipes.reward", "recipes.dpo", "recipes.ppo", "recipes.evaluate",
):
    importlib.import_module(name)
print("ready", flush=True)
import json
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            os.chdir(asked["cwd"])
            os.environ.update(asked["environment"])
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(asked[name], os.O_WRONLY | os.O_TRUNC), number)
            sys.argv = ["alignment", *asked["words"]]
            from alignment.cli import main
            main()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1 if error.code else 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    words: tuple[str, ...]
    code: int | None  # None: it was killed at the time limit
    out: str
    err: str
    seconds: float


class Commands:
    """The process that runs commands, one after another."""

    def __init__(self, **environment: str) -> None:
        self.environment = environment
        inherited = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", IMPORTED],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=inherited,
        )
        assert self._process.stdout.readline() == "ready\n"

    def run(self, words: list[str], cwd: Path, *, seconds: float, **environment: str) -> Ended:
        """Run a command to its end, or kill it after so many seconds."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = (Path(folder, name) for name in ("out", "err"))
            for file in (out, err):
                file.touch()
            asked = {"words": words, "cwd": str(cwd), "out": str(out), "err": str(err)}
            asked["environment"] = {**self.environment, **environment}
            began = time.monotonic()
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            child = int(self._process.stdout.readline())
            killed = not self._ended_within(seconds)
            if killed:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
            code = int(self._process.stdout.readline())
            took = time.monotonic() - began
            texts = [file.read_text(errors="replace") if file.exists() else "" for file in (out, err)]
            return Ended(tuple(words), None if killed else code, *texts, took)

    def _ended_within(self, seconds: float) -> bool:
        import select

        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()
