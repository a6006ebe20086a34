"""The GPU script's bookkeeping: results, refusal, time limits, the page; and all of it on a CPU."""

import contextlib
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.gpu import machine, runner
from benchmarks.gpu.page import page
from benchmarks.gpu.results import FAILED, NOT_RUN, PASSED, SKIPPED, Results, judged
from benchmarks.gpu.runner import Runner
from benchmarks.gpu.step import Findings
from benchmarks.gpu.steps import ROUNDS, STEPS, WHOLE_SECONDS, Step

ROOT = Path(__file__).parents[2]
RUN = ["bash", str(ROOT / "benchmarks" / "gpu" / "run.sh")]


def environment(**changes):
    return {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", **changes}


def made(tmp_path, *names, ends=60.0, commands=None):
    """A runner whose steps run Python code in place of modules."""
    results = Results(tmp_path / "results.json", {name: f"the {name}" for name in names})
    made = Runner(results, tmp_path, device="cpu", ends=time.monotonic() + ends, together=2, pack=None)
    made._command = lambda step: [sys.executable, "-c", (commands or {}).get(step.name, "")]
    return made


def said(tmp_path):
    return json.loads((tmp_path / "results.json").read_text())["steps"]


def found(tmp_path, step, content):
    return f"import json, pathlib; pathlib.Path({str(tmp_path / f'{step}.found.json')!r}).write_text({content!r})"


def step(name):
    return Step(name, f"the {name}", "none", 60)


def test_a_step_is_not_run_until_it_has_run(tmp_path):
    results = Results(tmp_path / "results.json", {"one": "the one", "two": "the two"})
    assert {each["status"] for each in said(tmp_path).values()} == {NOT_RUN}
    results.step("one", PASSED, seconds=1.0)
    assert (said(tmp_path)["one"]["status"], said(tmp_path)["two"]["status"]) == (PASSED, NOT_RUN)
    assert results.failed == ["two"]


def test_a_failing_step_is_reported_with_the_last_line_of_its_log_and_the_next_one_runs(tmp_path):
    good = found(tmp_path, "good", '{"numbers": {"n": 1}}')
    ours = made(
        tmp_path, "bad", "good", commands={"bad": "print('before'); raise SystemExit('it broke')", "good": good}
    )
    ours.run([[step("bad")], [step("good")]])
    assert (said(tmp_path)["bad"]["status"], said(tmp_path)["bad"]["reason"]) == (FAILED, "it broke")
    assert (said(tmp_path)["good"]["status"], said(tmp_path)["good"]["numbers"]) == (PASSED, {"n": 1})
    with tarfile.open(tmp_path / runner.LOGS) as logs:
        assert {"logs/bad.log", "logs/good.log"} <= set(logs.getnames())


def test_a_step_is_ended_at_its_limit_with_what_it_started_and_keeps_what_it_found(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "CPU_SECONDS", 6)
    sleeper = (
        found(tmp_path, "slow", '{"numbers": {"n": 1}}')
        + "; import subprocess, sys"
        + "; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)"
        + f"; pathlib.Path({str(tmp_path / 'child')!r}).write_text(str(child.pid))"
        + "; print('going', flush=True); child.wait()"
    )
    made(tmp_path, "slow", commands={"slow": sleeper}).run([[step("slow")]])
    slow = said(tmp_path)["slow"]
    assert slow["status"] == FAILED
    assert slow["reason"] == "ended after 6 s, its limit; last line of its log: going"
    assert slow["numbers"] == {"n": 1}
    child, end = int((tmp_path / "child").read_text()), time.monotonic() + 30
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_a_step_that_the_time_does_not_reach_stays_not_run(tmp_path):
    made(tmp_path, "late", ends=0.5).run([[step("late")]])
    assert said(tmp_path)["late"] == {"title": "the late", "status": NOT_RUN}


@pytest.mark.parametrize(
    ("code", "content", "status", "reason"),
    [
        (0, {"checks": [{"what": "kl", "ok": True}]}, PASSED, ""),
        (0, {"checks": [{"what": "kl", "ok": False}]}, FAILED, "outside its limit: kl"),
        (0, {"skipped": "no deepspeed"}, SKIPPED, "no deepspeed"),
        (0, {}, FAILED, "the step ended without a result"),
        (1, {"checks": [{"what": "kl", "ok": True}]}, FAILED, "last"),
        (None, {}, FAILED, "ended after 5 s, its limit; last line of its log: last"),
    ],
)
def test_the_results_of_a_step_decide_its_status(code, content, status, reason):
    assert judged(code, 5.0, content, "last") == (status, reason)


@pytest.mark.parametrize(
    ("number", "ok"), [(0.5, True), (1.0, True), (1.1, False), (-0.1, False), (float("nan"), False)]
)
def test_a_number_is_kept_beside_its_limits(tmp_path, number, ok):
    Findings(tmp_path / "found.json").check("share", number, least=0, most=1)
    (kept,) = json.loads((tmp_path / "found.json").read_text())["checks"]
    assert (kept["ok"], kept["least"], kept["most"]) == (ok, 0, 1)


def test_without_cuda_it_refuses_in_one_line(tmp_path):
    done = subprocess.run([*RUN, "--out", str(tmp_path)], env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "torch sees no CUDA device here; nothing was run. --cpu tries every step on tiny shapes"
    ]
    assert not any(tmp_path.iterdir())


def test_a_machine_that_lacks_libraries_needs_the_pack(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "can_import", lambda environment: False)
    ours = made(tmp_path, "install")
    assert not runner.install(ours, ours.results)
    assert said(tmp_path)["install"]["status"] == FAILED
    assert "make gpu-pack" in said(tmp_path)["install"]["reason"]


def test_the_rounds_fit_into_the_whole_time():
    assert len({each.name for each in STEPS}) == len(STEPS)
    assert max(each.seconds for each in STEPS) < WHOLE_SECONDS["cuda"]
    assert all((ROOT / "benchmarks" / "gpu" / f"{each.module}.py").is_file() for each in STEPS)
    assert [each for together in ROUNDS for each in together] == STEPS


def test_the_page_gives_numbers_beside_their_limits():
    steps = {
        "models": {"title": "the models", "status": PASSED, "seconds": 1.5, "numbers": {"batch 1": {"ms": 2.0}}},
        "judge": {
            **{"title": "the judge", "status": FAILED, "seconds": 2.0, "reason": "outside | its limit"},
            "checks": [{"what": "share", "found": 0.5, "least": 1, "most": None, "ok": False}],
        },
    }
    run = {"device": {"kind": "cuda", "name": "H", "memory_gib": 80}, "started": "2026-01-02T00:00:00", "steps": steps}
    text = page([{**run, "limit_seconds": 480, "seconds": 12.0, "versions": {"torch": "2.11.0"}}])
    assert "## H, 80 GiB, 2026-01-02" in text
    assert "12 s of 480; torch 2.11.0" in text
    assert "| `models` | the models | passed | 1.5 |" in text
    assert "| batch 1, ms | 2 |" in text
    assert "| `judge` | the judge | **failed**: outside \\| its limit | 2 |" in text
    assert "| share | 0.5 | 1 | – | **no** |" in text
    assert "| `trl` |" not in text  # which it was not asked to run


def test_the_committed_page_is_what_the_command_makes_of_the_committed_results():
    files = sorted((ROOT / "benchmarks" / "gpu" / "results").glob("*.json"))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.page", *map(str, files)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    if not files:
        assert "Nothing has been run on a GPU yet" in done.stdout
        assert done.stdout.count("**not run**") == len(STEPS)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_step_runs_on_a_cpu(tmp_path):
    done = subprocess.run([*RUN, "--cpu", "--out", str(tmp_path)], env=environment(), capture_output=True, text=True)
    steps = said(tmp_path)
    may_be_skipped = {"install", "zero3", "trl"}  # nothing to install; no deepspeed; no pack with TRL 1.12.0
    wrong = {
        name: each
        for name, each in steps.items()
        if each["status"] not in ((PASSED, SKIPPED) if name in may_be_skipped else (PASSED,))
    }
    assert wrong == {}
    assert steps.keys() == {"install", *(each.name for each in STEPS)}
    assert done.returncode == 0, done.stdout
    assert (tmp_path / runner.LOGS).is_file()
    assert steps["agreement"]["checks"]
