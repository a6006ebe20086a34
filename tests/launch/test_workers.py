"""What a node's launcher ends with."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed import DistNetworkError
from torch.distributed.elastic.multiprocessing import api
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous.api import RendezvousConnectionError, RendezvousTimeoutError

from alignment.launch.workers import _run

ROOT = Path(__file__).parents[2]


def failed(*codes: int) -> ChildFailedError:
    failures = {rank: ProcessFailure(rank, 1, code, "") for rank, code in enumerate(codes)}
    for rank, failure in failures.items():
        failure.timestamp = 100 + rank
    return ChildFailedError("recipes.sft", failures)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (failed(2, 1), 2, "process 0 of this node ended with code 2"),
        (failed(-9), 137, "process 0 of this node ended with code 137"),
        (failed(143, 143), 143, ""),
        (api.SignalException("", signal.SIGTERM), 143, ""),
        (api.SignalException("", signal.SIGUSR1), 143, ""),
        (api.SignalException("", signal.SIGINT), 130, ""),
        (RendezvousConnectionError("gone"), 143, "no connection to the other nodes: gone"),
        (RendezvousTimeoutError("late"), 143, "no connection to the other nodes: late"),
        (DistNetworkError("cut"), 143, "no connection to the other nodes: cut"),
    ],
)
def test_it_ends_as_its_workers_did(error, code, said, monkeypatch, capsys):
    monkeypatch.setattr(api, "_terminate_process_handler", api._terminate_process_handler)  # put back afterwards

    def start(args: object) -> None:
        raise error

    assert _run(start, None) == code
    assert capsys.readouterr().err.strip() == said


def test_other_errors_are_reported_with_their_traceback(monkeypatch):
    monkeypatch.setattr(api, "_terminate_process_handler", api._terminate_process_handler)
    with pytest.raises(ZeroDivisionError):
        _run(lambda args: 1 // args, 0)


@pytest.mark.parametrize("told", [signal.SIGUSR1, signal.SIGINT])
def test_torchrun_does_not_report_an_end_by_the_user(told, tmp_path):
    script = tmp_path / "wait.py"
    script.write_text(
        "import os, signal, sys, time\n"
        "for each in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):\n"
        "    signal.signal(each, lambda *_: sys.exit(143))\n"
        "os.write(1, b'up\\n')\n"  # one write, where print makes two
        "time.sleep(60)\n"
    )
    config = ROOT / "launch" / "accelerate" / "cpu.yaml"
    command = [sys.executable, "-m", "alignment.launch.workers", "--config_file", str(config), "--num_processes", "2"]
    started = subprocess.Popen(
        [*command, str(script)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert [started.stdout.readline() for _ in range(2)] == ["up\n"] * 2
    started.send_signal(told)
    _, said = started.communicate(timeout=60)
    assert started.returncode == (143 if told == signal.SIGUSR1 else 130)
    assert said == ""
