"""Every stage, killed right before chosen file events and started again by the same command: the same run.

`tests/hostile/test_kills.py` goes through all kinds of events; here are those after which little is left to do.
"""

import signal
from pathlib import Path

import pytest

from tests import killing
from tests.kill_runs import TRAINED, Runs, last, write_inputs

pytestmark = pytest.mark.timeout(900)
LATE = (
    "rename checkpoint-{last}/whole.json",  # the last checkpoint is written and not marked
    "rmdir checkpoint-3",  # it is marked, and an old one half deleted
    "safetensors .saving/",  # the final evaluation is done, the model is written
    "rename README.md",
    "rename manifest.json",  # the last of these is the finished mark
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.mark.parametrize("stage", TRAINED)
def test_a_run_killed_after_its_last_step_trains_no_more(inputs: Path, tmp_path: Path, stage: str) -> None:
    runs = Runs(inputs, tmp_path, stage)
    straight, moments = runs.straight()
    for kind in LATE if stage in ("sft", "ppo") else LATE[2:3]:
        kind = kind.format(last=8 if stage == "ppo" else 7)
        assert runs.goes_on_after(last(moments, kind)) == [-signal.SIGKILL], kind
        assert not killing.differences(straight, runs.run), kind


def test_a_stage_that_is_signalled_to_end_once_it_is_finished_is_not_queued_again(inputs: Path, tmp_path: Path) -> None:
    runs = Runs(inputs, tmp_path, "label")
    straight, moments = runs.straight()
    assert runs.goes_on_after(last(moments, "rename manifest.json"), number=signal.SIGTERM) == [0]
    assert not killing.differences(straight, runs.run)
