"""Two processes do not work in one run's folder."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from alignment.errors import AlignmentError
from alignment.run.folder_lock import hold

HOLDS = """
import sys, time
from pathlib import Path
from alignment.run.folder_lock import hold
class Run: pass
run = Run()
hold(Path(sys.argv[1]), run)
print("holds", flush=True)
time.sleep(float(sys.argv[2]))
"""


class Run:
    pass


@contextmanager
def holder(folder: Path, seconds: float) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", HOLDS, folder, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "holds\n"
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_and_a_killed_one_leaves_the_folder_free(tmp_path, capsys):
    with holder(tmp_path, 600):
        with pytest.raises(AlignmentError, match="another process works in this folder; wait for it, or end it"):
            hold(tmp_path, Run(), patience=0.3)
        assert capsys.readouterr().err.count("another process works in this folder; waiting") == 1
    hold(tmp_path, Run(), patience=0.3)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_about_to_end_is_waited_for(tmp_path):
    with holder(tmp_path, 0.5) as other:
        hold(tmp_path, Run(), patience=120)
        assert other.wait(timeout=60) == 0


def test_the_same_process_may_open_its_folder_twice_and_lets_go_with_the_run(tmp_path):
    first, second = Run(), Run()
    hold(tmp_path, first)
    hold(tmp_path, second, patience=0.1)
    del first, second
    gc.collect()
    with holder(tmp_path, 0) as other:
        assert other.wait(timeout=60) == 0
