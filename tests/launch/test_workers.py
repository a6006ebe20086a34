"""What a node's launcher ends with."""

import signal

import pytest
from torch.distributed import DistNetworkError
from torch.distributed.elastic.multiprocessing import api
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous.api import RendezvousConnectionError, RendezvousTimeoutError

from alignment.launch.workers import _run


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
        (RendezvousConnectionError("gone"), 143, "the other nodes are not there, or no more: gone"),
        (RendezvousTimeoutError("late"), 143, "the other nodes are not there, or no more: late"),
        (DistNetworkError("cut"), 143, "the other nodes are not there, or no more: cut"),
    ],
)
def test_it_ends_as_its_workers_did(error, code, said, monkeypatch, capsys):
    monkeypatch.setattr(api, "_terminate_process_handler", api._terminate_process_handler)  # put back afterwards

    def start(args: object) -> None:
        raise error

    assert _run(start, None) == code
    assert capsys.readouterr().err.strip() == said


def test_what_is_none_of_these_is_told_with_its_traceback(monkeypatch):
    monkeypatch.setattr(api, "_terminate_process_handler", api._terminate_process_handler)
    with pytest.raises(ZeroDivisionError):
        _run(lambda args: 1 // args, 0)
