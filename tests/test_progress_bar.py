"""What long work says: lines in a pipe, a bar on a terminal, and nothing from any process but the first."""

import os
import pty
import subprocess
import sys

import pytest

from alignment import meter as module
from alignment.meter import PROGRESS_LINE, ProgressBar

LOOP = (
    "import time\nfrom alignment.meter import ProgressBar\n"
    "with ProgressBar('sft', 'steps', 3, note=lambda: 'loss 0.5') as bar:\n"
    "    for _ in range(3):\n        time.sleep(0.01)\n        bar.advance(1)\n"
)


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_every_ten_seconds_with_the_time_left(clock, capsys):
    with ProgressBar("sft", "steps", 100, 20, rate=lambda: "7 tokens/s", note=lambda: "loss 2.5") as bar:
        for _ in range(40):
            clock[0] += 1
            bar.advance(1)
    assert capsys.readouterr().err.splitlines() == [
        "sft 30/100 steps (30%), 1:10 left, 7 tokens/s, loss 2.5",  # 10 steps took 10 s, 70 are left
        "sft 40/100 steps (40%), 1:00 left, 7 tokens/s, loss 2.5",
        "sft 50/100 steps (50%), 50.0 s left, 7 tokens/s, loss 2.5",
        "sft 60/100 steps (60%), 40.0 s left, 7 tokens/s, loss 2.5",
        "sft 60/100 steps (60%), took 40.0 s, 7 tokens/s, loss 2.5",  # it ended early
    ]


def test_lines_of_long_work_are_a_minute_apart(clock, capsys):
    with ProgressBar("ppo", "steps", 100_000) as bar:
        for _ in range(7200):
            clock[0] += 1
            bar.advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert 120 <= len(lines) <= 170
    assert all(PROGRESS_LINE.match(line) for line in lines)


def test_other_processes_are_silent(monkeypatch, clock, capsys):
    monkeypatch.setenv("RANK", "1")
    with ProgressBar("sft", "steps", 2) as bar:
        clock[0] += 60
        bar.advance(2)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar():
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    child = subprocess.Popen([sys.executable, "-c", LOOP], stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    drawn = b""
    try:
        while block := os.read(ours, 4096):
            drawn += block
    except OSError:  # Linux tells the end of a terminal this way
        pass
    assert child.wait() == 0
    os.close(ours)
    text = drawn.decode()
    assert "━" in text
    assert "3/3" in text
    assert "loss 0.5" in text
    assert "(100%)" not in text, "a line where the bar is"
