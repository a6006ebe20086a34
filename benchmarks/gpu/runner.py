"""Run every step of `steps.py`, each in a process with a time limit of its own; see README.md here.

    bash benchmarks/gpu/run.sh [--cpu] [--out gpu-results]

Ends with 0 if every step passed or was skipped, with 1 where one failed or was not reached, with 2 where there is
no CUDA device and --cpu is not given.
"""

import argparse
import concurrent.futures
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import machine
from benchmarks.gpu.results import FAILED, NAME, SKIPPED, Results, judged
from benchmarks.gpu.steps import CPU_SECONDS, LAST_SECONDS, PARTS, ROUNDS, WHOLE_SECONDS, Step

ROOT = Path(__file__).resolve().parents[2]
LOGS = "logs.tar.gz"
KILLS = 200  # looks for what is still there, 10 ms apart: a process that waits for a driver may not end
MARK = "ALIGNMENT_GPU_STEP"
SHOWN = 300  # characters of a log's last line


class Runner:
    """One run: a results file, a folder to work in, and a moment at which all must have ended."""

    def __init__(
        self, results: Results, work: Path, *, device: str, ends: float, together: int, pack: Path | None
    ) -> None:
        """Take over the rest of the time.

        Args:
            ends: `time.monotonic()` at which no step may run any more. together: steps side by side at most.
        """
        self.results, self.work, self.device, self.ends, self.together = results, work, device, ends, together
        self.pack = pack
        self.logs = work / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        paths = [machine.site_of(work), str(ROOT), os.environ.get("PYTHONPATH", "")]
        self.environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        self.environment["TORCH_EXTENSIONS_DIR"] = str(work / "extensions")  # no lock of a build that was ended before
        self.environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // together))
        if device == "cpu":
            self.environment["CUDA_VISIBLE_DEVICES"] = ""

    def run(self, rounds: Sequence[Sequence[Step]]) -> None:
        """Run the rounds one after the other, as far as the time goes."""
        for steps in rounds:
            with concurrent.futures.ThreadPoolExecutor(min(self.together, len(steps))) as pool:
                list(pool.map(self._one, steps))
            archive(self.logs, self.results.path.parent / LOGS)

    def _one(self, step: Step) -> None:
        left = self.ends - time.monotonic()
        if left < 1:
            return  # remains "not run"
        allowed = min(float(step.seconds if self.device == "cuda" else CPU_SECONDS), left)
        print(f"{step.name}: started", flush=True)
        begun = time.monotonic()
        code = self.process(step.name, [*self._command(step), "--seconds", f"{allowed:.0f}"], allowed)
        found = machine.read_json(self._found(step))
        status, reason = judged(code, allowed, found, last_line(self.logs / f"{step.name}.log"))
        kept = {key: found[key] for key in ("numbers", "checks") if found.get(key)}
        seconds = round(time.monotonic() - begun, 1)
        self.results.step(step.name, status, seconds=seconds, **({"reason": reason} if reason else {}), **kept)
        print(f"{step.name}: {status} after {seconds} s{f': {reason}' if reason else ''}", flush=True)

    def _found(self, step: Step) -> Path:
        return self.work / f"{step.name}.found.json"

    def _command(self, step: Step) -> list[str]:
        options = ["--name", step.name, "--device", self.device, "--work", str(self.work), "--variant", step.variant]
        pack = ["--pack", str(self.pack)] if self.pack else []
        found = ["--found", str(self._found(step))]
        return [sys.executable, "-m", f"benchmarks.gpu.{step.module}", *options, *found, *pack]

    def process(self, name: str, command: list[str], allowed: float) -> int | None:
        """Run a command with its log; None if it was ended after `allowed` seconds, with all that it had started."""
        with (self.logs / f"{name}.log").open("ab") as log:
            mark = self.mark(name)
            environment = {**self.environment, **dict([mark.split("=", 1)])}
            started = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
            try:
                return started.wait(allowed)
            except subprocess.TimeoutExpired:
                return None
            finally:
                kill_marked(mark)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    started.wait(1)

    def mark(self, name: str = "") -> str:
        """The variable that all processes of a step inherit, as its environment has it; "": how those of all begin."""
        return f"{MARK}={self.work}:{name}{':' if name else ''}"

    def end(self, *_: Any) -> None:
        """End at once, with all processes; the results so far are in the results file."""
        kill_marked(self.mark())
        shutil.rmtree(self.work, ignore_errors=True)
        os._exit(1)


def kill_marked(mark: str) -> None:
    """End every process whose environment has this: launchers put theirs in sessions and groups of their own."""
    for _ in range(KILLS):
        found = [process for process in Path("/proc").glob("[0-9]*") if f"\0{mark}" in _environment(process)]
        if not found:
            return
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGKILL)
        time.sleep(0.01)


def _environment(process: Path) -> str:
    """What a process was started with; "" of one that has ended or is another user's."""
    try:
        return "\0" + (process / "environ").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def last_line(log: Path) -> str:
    """Return the last line that is not blank, shortened."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return next((line.strip()[:SHOWN] for line in reversed(lines) if line.strip()), "")


def archive(logs: Path, out: Path) -> None:
    """Put all logs into one file, which is never half there."""
    beside = out.with_name(f".{out.name}.new")
    with tarfile.open(beside, "w:gz") as tar:
        tar.add(logs, arcname="logs")
    os.replace(beside, out)


def main(argv: list[str] | None = None) -> int:
    """Run everything. Returns: the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.allow_abbrev = False  # run.sh reads --cpu too
    parser.add_argument("--cpu", action="store_true", help="every step on tiny shapes, to see that the script runs")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "gpu-results"))
    parser.add_argument("--pack", type=Path, default=ROOT / ".gpu-pack", help="what `make gpu-pack` made")
    parser.add_argument("--part", choices=PARTS, help="one half of the steps; default: all, as far as the time goes")
    parser.add_argument("--only", nargs="+", help="names of steps; the others are left out")
    args = parser.parse_args(argv)
    begun = time.monotonic()
    device = "cpu" if args.cpu else "cuda"
    if device == "cuda" and not machine.has_cuda():
        print("torch sees no CUDA device here; nothing was run. --cpu tries every step on tiny shapes", file=sys.stderr)
        return 2
    rounds = [[step for step in steps if _chosen(step, args)] for steps in ROUNDS]
    titles = {"install": "Install the pack", **{step.name: step.title for steps in rounds for step in steps}}
    whole = WHOLE_SECONDS[device]
    results = Results(
        args.out / NAME, titles, started=machine.now(), limit_seconds=whole, device=machine.device(device)
    )
    work = Path(tempfile.mkdtemp(prefix="alignment-gpu-", dir=machine.roomy_folder(device)))
    try:
        pack = args.pack.resolve() if args.pack.is_dir() else None
        together = 2 if device == "cpu" else max(1, (os.cpu_count() or 1) // 2)
        ends = begun + whole - LAST_SECONDS
        runner = Runner(results, work, device=device, ends=ends, together=together, pack=pack)
        signal.signal(signal.SIGTERM, runner.end)
        if install(runner, results):
            results.note(versions=machine.versions(runner.environment))
            runner.run([steps for steps in rounds if steps])
        archive(runner.logs, args.out / LOGS)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    results.note(seconds=round(time.monotonic() - begun, 1))
    print(f"{results.path}: {len(titles) - len(results.failed)} of {len(titles)} steps passed or were skipped")
    return 1 if results.failed else 0


def _chosen(step: Step, args: argparse.Namespace) -> bool:
    return (not args.only or step.name in args.only) and (not args.part or args.part in step.parts)


def install(runner: Runner, results: Results) -> bool:
    """Install the pack beside the machine's own packages, where these do not hold what the project needs.

    Returns: whether the steps can run.
    """
    begun = time.monotonic()
    if machine.can_import(runner.environment):
        results.step("install", SKIPPED, reason="this environment holds what the project needs")
        return True
    wheels = sorted(map(str, runner.pack.glob("wheels/*.whl"))) if runner.pack else []
    if not wheels:
        results.step("install", FAILED, reason="no pack: run `make gpu-pack` where there is a network, and carry it")
        return False
    options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--target", machine.site_of(runner.work)]
    code = runner.process("install", [sys.executable, "-m", "pip", "install", *options, *wheels], 120)
    can = code == 0 and machine.can_import(runner.environment)
    found: dict[str, Any] = {"seconds": round(time.monotonic() - begun, 1), "numbers": {"wheels": len(wheels)}}
    reason = {} if can else {"reason": last_line(runner.logs / "install.log")}
    results.step("install", "passed" if can else FAILED, **reason, **found)
    return can


if __name__ == "__main__":
    sys.exit(main())
