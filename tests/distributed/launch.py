"""Starting several processes as a launcher does, for tests."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WORKER = ["-m", "tests.distributed.worker"]
FSDP2 = {  # what `accelerate launch` tells processes, but for the device
    "ACCELERATE_TORCH_DEVICE": "cpu",
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}


def start(arguments: list[str], processes: int, log: Path, **environment: str) -> list["subprocess.Popen[bytes]"]:
    """Start `python ARGUMENTS` in each of several processes that find one another on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        **environment,
    }
    started = []
    for rank in range(processes):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
        with log.with_suffix(f".{rank}.log").open("ab") as output:
            started.append(
                subprocess.Popen(
                    [sys.executable, *arguments], env={**shared, **own}, cwd=ROOT, stdout=output, stderr=output
                )
            )
    return started


def finish(started: list["subprocess.Popen[bytes]"], log: Path, *, timeout_seconds: float = 240) -> None:
    """Wait until every process has ended well; one that fails or hangs fails the test with the end of its log."""
    end = time.monotonic() + timeout_seconds
    try:
        while any(process.poll() is None for process in started):
            if any(process.poll() not in (None, 0) for process in started):
                break
            assert time.monotonic() < end, f"no end after {timeout_seconds} s\n{_logs(started, log)}"
            time.sleep(0.05)
        codes = [process.poll() for process in started]
        assert codes == [0] * len(started), f"exit codes {codes}\n{_logs(started, log)}"
    finally:
        kill(started)


def kill(started: list["subprocess.Popen[bytes]"]) -> None:
    """End them as a power cut would."""
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
    for process in started:
        process.wait()


def _logs(started: list[Any], log: Path) -> str:
    files = [log.with_suffix(f".{rank}.log") for rank in range(len(started))]
    return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)


def run_jobs(jobs: list[dict[str, Any]], folder: Path, *, processes: int = 2, **environment: str) -> None:
    """Have `tests.distributed.worker` do jobs one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jobs.json").write_text(json.dumps(jobs, default=str))
    log = folder / "worker"
    finish(start([*WORKER, str(folder / "jobs.json")], processes, log, **environment), log)
