"""Every stage, killed right before chosen file events and started again by the same command: the same run.

`tests/hostile/test_kills.py` goes through all kinds of events; here are those after which little is left to do.
"""

import functools
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from alignment.run.directory import read_manifest
from tests import killing
from tests.distributed.stage import Stage, make_inputs, write_recipe
from tests.recipes.test_killed_training import write

pytestmark = pytest.mark.timeout(900)
PATIENCE_SECONDS = 240
# An epoch has four steps: training ends within one, at no multiple of the other numbers, and kills come between logs.
KEYS = {"max_steps": 7, "logging_steps": 2, "save_steps": 3, "eval_steps": 4, "save_total_limit": 2}
LATE = (
    "rename checkpoint-{last}/whole.json",  # the last checkpoint is written and not marked
    "rmdir checkpoint-3",  # it is marked, and an old one half deleted
    "safetensors .saving/",  # the final evaluation is done, the model is written
    "rename README.md",
    "rename manifest.json",  # the last of these is the finished mark
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with dropout, demonstrations, pairs, prompts and a reward model."""
    folder = make_inputs(tmp_path_factory.mktemp("inputs"), attention_dropout=0.1)
    rows = [{"prompt": f"tell me {number}", "completion": "a b c " * (1 + number % 3)} for number in range(24)]
    (folder / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": "c", "margin": 1.0} for row in rows]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return folder


class Runs:
    """Starts of one command, whose run lies at one place."""

    def __init__(self, inputs: Path, folder: Path, stage: str, **keys: Any) -> None:
        self.folder, self.stage, self.run = folder, stage, folder / "run"
        if stage == "ppo":
            settings = {"total_episodes": 16, "save_steps": 3, "save_total_limit": 2, **keys}
            self.argv = write_recipe(inputs, self.run, **settings)
        else:
            self.argv = write(inputs, self.run, stage, **{"lora_dropout": 0.1, **KEYS, **keys})

    def start(self, at: int | None = None, number: int = signal.SIGKILL) -> tuple[int | None, list[str]]:
        """Start the command; its exit code, and the events that it passed by."""
        log = self.folder / "moments"
        log.unlink(missing_ok=True)
        before = functools.partial(killing.arm, str(self.run), str(log), at, number)
        started = Stage(self.argv, self.folder / "log", stage=self.stage, before=before)
        [process] = started.processes
        process.join(PATIENCE_SECONDS)
        started.kill()
        return process.exitcode, killing.moments_of(log)

    def said(self) -> str:
        return Path(f"{self.folder / 'log'}.0").read_text()[-3000:]

    def straight(self) -> tuple[Path, list[str]]:
        """Run through; the run, moved aside, and its events."""
        code, moments = self.start()
        assert code == 0, self.said()
        return self.run.rename(self.folder / "straight"), moments

    def goes_on_after(self, *kills: int, number: int = signal.SIGKILL) -> list[int | None]:
        """End one start after the other at an event, then run to the end; the exit codes of those that were ended."""
        shutil.rmtree(self.run, ignore_errors=True)
        codes = []
        for at in kills:
            codes.append(self.start(at, number)[0])
            if read_manifest(self.run).get("status") == "finished":
                return codes
        code, _ = self.start()
        assert code == 0, self.said()
        return codes


def last(moments: list[str], kind: str) -> int:
    """The number of the last event that begins so."""
    return max(place for place, moment in enumerate(moments, 1) if moment.startswith(kind))


@pytest.mark.parametrize("stage", ["sft", "reward", "dpo", "ppo"])
def test_a_run_killed_after_its_last_step_trains_no_more(inputs: Path, tmp_path: Path, stage: str) -> None:
    runs = Runs(inputs, tmp_path, stage)
    straight, moments = runs.straight()
    for kind in LATE if stage in ("sft", "ppo") else LATE[2:3]:
        kind = kind.format(last=8 if stage == "ppo" else 7)
        assert runs.goes_on_after(last(moments, kind)) == [-signal.SIGKILL], kind
        assert not killing.differences(straight, runs.run), kind
