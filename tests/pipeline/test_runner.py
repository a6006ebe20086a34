"""Pipelines of cheap commands: what runs, what is skipped, what a failure and a Ctrl-C leave."""

import contextlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from rich.console import Console

from alignment.config import load_pipeline
from alignment.errors import AlignmentError, RecipeError
from alignment.meter import duration
from alignment.pipeline.runner import run_pipeline
from alignment.run.inputs import code_hash, content_hash, dependencies
from alignment.run.processes import module_command, run_logged, tail
from alignment.run.progress import last_metrics
from alignment.run.signals import PREEMPTED

STEP = '''
"""python -m step OUT SECONDS CODE INPUT...: waits, then writes what its inputs hold, or fails."""
import pathlib, sys, time
out, seconds, code, *inputs = sys.argv[1:]
print("step writes", out, flush=True)
time.sleep(float(seconds))
if int(code):
    print("it broke\\rit broke badly")
    sys.exit(int(code))
text = "".join(pathlib.Path(each).read_text() for each in inputs)
pathlib.Path(out).write_text(text + pathlib.Path(out).stem)
with open("calls.txt", "a") as calls:
    calls.write(pathlib.Path(out).stem + "\\n")
'''


def step(name: str, *inputs: str, seconds: float = 0, code: int = 0) -> dict:
    reads = [f"runs/{each}.txt" for each in inputs]
    return {
        "name": name,
        "command": ["step", f"runs/{name}.txt", str(seconds), str(code), *reads],
        "inputs": reads,
        "outputs": [f"runs/{name}.txt"],
    }


class Bench:
    """A working folder with a pipeline in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "step.py").write_text(STEP)

    def write(self, *stages: dict) -> None:
        text = yaml.safe_dump({"name": "fake", "output_dir": "runs", "stages": list(stages)})
        (self.folder / "pipeline.yaml").write_text(text)

    def run(self, **options) -> int:
        self.said = io.StringIO()
        return run_pipeline("pipeline.yaml", console=Console(file=self.said, width=200), **options)

    def calls(self) -> list[str]:
        file = self.folder / "calls.txt"
        found = file.read_text().split() if file.exists() else []
        file.unlink(missing_ok=True)
        return found

    def state(self) -> dict:
        return json.loads((self.folder / "runs/pipeline.json").read_text())["stages"]


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Bench:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Bench(tmp_path)


def test_finished_stages_are_skipped_and_stale_ones_run_again(bench):
    bench.write(step("a"), step("b", "a"), step("c", "b"))
    assert bench.run() == 0
    assert bench.calls() == ["a", "b", "c"]
    assert (bench.folder / "runs/c.txt").read_text() == "abc"
    assert "step writes runs/a.txt" in (bench.folder / "runs/a.log").read_text()
    assert [record["status"] for record in bench.state().values()] == ["finished"] * 3

    assert bench.run() == 0
    assert bench.calls() == []
    assert "a: unchanged, skipped" in bench.said.getvalue()

    (bench.folder / "runs/a.txt").write_text("A")  # changed by hand: b reads it, and c what b writes
    assert bench.run() == 0
    assert bench.calls() == ["b", "c"]
    assert (bench.folder / "runs/c.txt").read_text() == "Abc"
    assert "b: runs/a.txt changed, runs again" in bench.said.getvalue()

    bench.write(step("a"), step("b", "a", seconds=0.01), step("c", "b"))  # b is another command with the same result
    assert bench.run() == 0
    assert bench.calls() == ["b"]

    (bench.folder / "runs/c.txt").unlink()
    assert bench.run() == 0
    assert bench.calls() == ["c"]

    (bench.folder / "step.py").write_text(STEP + "# another version\n")
    assert bench.run() == 0
    assert bench.calls() == ["a", "b", "c"]
    assert "a: code of step changed, runs again" in bench.said.getvalue()


def test_from_and_only(bench):
    bench.write(step("a"), step("b", "a"), step("c", "b"))
    with pytest.raises(AlignmentError, match=r"stage b reads runs/a\.txt, which is not there; stage a writes it"):
        bench.run(only="b")
    assert bench.run(only="a") == 0
    assert bench.calls() == ["a"]
    assert bench.run() == 0
    assert bench.calls() == ["b", "c"]
    assert bench.run(start="b") == 0
    assert bench.calls() == ["b", "c"]
    assert bench.run(only="b") == 0
    assert bench.calls() == ["b"]
    with pytest.raises(RecipeError, match=r"--from: pipeline\.yaml has no stage z; it has a, b, c"):
        bench.run(start="z")
    with pytest.raises(RecipeError, match="exclude each other"):
        bench.run(start="a", only="b")


def test_a_failing_stage_stops_the_run_with_its_code_and_its_logs_tail(bench, capsys):
    bench.write(step("a"), step("b", "a", code=7), step("c", "b"))
    assert bench.run() == 7
    error = capsys.readouterr().err
    assert "stage b failed with exit code 7; the end of runs/b.log:" in error
    assert "  it broke badly" in error  # of a line that redraws itself, the last state
    assert "it broke\n" not in error
    assert bench.calls() == ["a"]
    assert bench.state()["b"]["status"] == "failed"
    assert bench.state()["c"] == {"status": "not started"}
    bench.write(step("a"), step("b", "a"), step("c", "b"))
    assert bench.run() == 0
    assert bench.calls() == ["b", "c"]


def test_a_command_that_leaves_no_output_has_failed(bench, capsys):
    stage = step("a")
    bench.write(stage | {"outputs": ["runs/other.txt"]})
    assert bench.run() == 1
    assert "the stage ended well but left no runs/other.txt" in capsys.readouterr().err


def test_results_hold_the_seconds_of_each_stage(bench):
    bench.write(step("a", seconds=0.3), step("b"))
    assert bench.run() == 0
    seconds = json.loads((bench.folder / "runs/results.json").read_text())["seconds"]
    assert list(seconds) == ["a", "b"]
    assert 0.3 <= seconds["a"] < 20
    bench.run()  # skipping adds nothing and forgets nothing
    assert json.loads((bench.folder / "runs/results.json").read_text())["seconds"] == seconds


def test_output_dir_moves_everything(bench):
    bench.write(step("a"), step("b", "a"))
    assert bench.run(output_dir="other") == 0
    assert (bench.folder / "other/b.txt").read_text() == "ab"
    assert not (bench.folder / "runs").exists()


def test_a_damaged_state_is_named(bench):
    bench.write(step("a"))
    bench.run()
    (bench.folder / "runs/pipeline.json").write_text("{")
    with pytest.raises(AlignmentError, match=r"runs/pipeline\.json: not JSON .*; delete it and run again"):
        bench.run()


def started(bench: Bench, wait_for: str) -> "subprocess.Popen[str]":
    """Start the command and wait until a log has a text in it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "alignment.cli", "run", "pipeline.yaml"],
        cwd=bench.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 60
    while time.monotonic() < end:
        log = bench.folder / f"runs/{wait_for}.log"
        if log.is_file() and "step writes" in log.read_text():
            return process
        time.sleep(0.05)
    process.kill()
    raise AssertionError("the stage did not start within a minute")


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "background"])
def job(request):
    """This process in the foreground, or as a background job, which ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("job")
@pytest.mark.parametrize("session", [False, True])  # True: as torchrun starts its workers
def test_an_interrupted_command_is_asked_to_end_and_its_own_children_are_ended(tmp_path, session):
    # The command says how it was asked; its child ignores Ctrl-C, so only force ends it.
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(100.75)"
    parent = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {deaf!r}], start_new_session={session})\n"
        "time.sleep(2); print('begun', flush=True)\n"
        "try: time.sleep(100)\n"
        "except KeyboardInterrupt: print('asked by Ctrl-C', flush=True)\n"
    )
    log = tmp_path / "log"

    def interrupt() -> None:
        if "begun" in log.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_logged([sys.executable, "-c", parent], log, interrupt)
    assert "asked by Ctrl-C" in log.read_text()
    assert not alive("time.sleep(100.75)")


def alive(command: str) -> bool:
    found = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return any(command in " ".join(words) for words in found)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_ends_at_once_with_its_stage_and_goes_on_later(bench, number, code):
    bench.write(step("a"), step("b", "a", seconds=100.5))
    process = started(bench, "b")
    begun = time.monotonic()
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert time.monotonic() - begun < 5  # 2 s on a machine that is not running tests beside it
    assert process.returncode == code
    assert "Traceback" not in error
    assert not alive("runs/b.txt 100.5")
    assert bench.state()["b"]["status"] == "interrupted"
    assert not (bench.folder / "runs/b.txt").exists()
    bench.write(step("a"), step("b", "a"))
    assert bench.run() == 0
    assert bench.calls() == ["a", "b"]  # a before the signal, b now


def test_a_killed_run_takes_its_stage_along_and_does_not_trust_half_an_output(bench):
    bench.write(step("a", seconds=100.25))
    process = started(bench, "a")
    process.kill()
    process.communicate(timeout=30)
    end = time.monotonic() + 10
    while time.monotonic() < end and alive("runs/a.txt 100.25"):
        time.sleep(0.05)
    assert not alive("runs/a.txt 100.25")
    (bench.folder / "runs/a.txt").write_text("half")
    bench.write(step("a"))
    state = json.loads((bench.folder / "runs/pipeline.json").read_text())
    state["stages"]["a"]["dependencies"] = dependencies(load_pipeline("pipeline.yaml").stages[0])
    (bench.folder / "runs/pipeline.json").write_text(json.dumps(state))
    assert bench.run() == 0
    assert bench.calls() == ["a"]
    assert "a: was running, runs again" in bench.said.getvalue()


def test_two_runs_at_once_are_refused(bench):
    bench.write(step("a", seconds=100))
    process = started(bench, "a")
    try:
        with pytest.raises(AlignmentError, match="runs: another `alignment run` uses this folder"):
            bench.run()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def test_a_signal_to_end_waits_for_a_stage_that_is_saving(bench):
    saves = (
        "import signal, sys, time\n"
        "def save(*_):\n"
        "    time.sleep(2.5)\n"  # longer than an interrupted stage is given
        "    open('runs/saved', 'w').close()\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGUSR1, save)\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit('srun would kill'))\n"
        "print('step writes nothing yet', flush=True)\n"
        "time.sleep(100)\n"
    )
    (bench.folder / "saves.py").write_text(saves)
    bench.write({"name": "a", "command": ["saves"], "outputs": ["runs/a.txt"]})
    process = started(bench, "a")
    process.send_signal(signal.SIGTERM)
    said, error = process.communicate(timeout=30)
    assert process.returncode == PREEMPTED == 143
    assert (bench.folder / "runs/saved").exists()
    assert bench.state()["a"]["status"] == "interrupted"
    assert "ended by SIGTERM; the same command resumes from where it was" in said
    assert "Traceback" not in error


class TestRecipeStages:
    """A stage's script is stood in for by a module of the same name that only keeps a run's accounts."""

    SCRIPT = (
        "import sys\n"
        "from pathlib import Path\n"
        "from alignment.config import load_recipe\n"
        "from alignment.run.directory import RunDirectory\n"
        "from alignment.run.script import script\n"
        "def main():\n"
        "    recipe = load_recipe('sft', sys.argv[1:])\n"
        "    existed = Path(recipe.output_dir, 'half').exists()\n"
        "    run = RunDirectory.open(recipe)\n"
        "    resumed = (run.path / 'half').exists()\n"
        "    Path('calls.txt').open('a').write(f'existed={existed},resumed={resumed}\\n')\n"
        "    (run.path / 'half').write_text('')\n"
        "    if Path('break').exists(): sys.exit(9)\n"
        "    (run.path / 'model.safetensors').write_text(str(recipe.seed))\n"
        "    run.finish(reward_accuracy=0.5)\n"
        "script(main)\n"
    )

    @pytest.fixture
    def sft(self, bench, monkeypatch) -> Bench:
        (bench.folder / "recipes").mkdir()
        (bench.folder / "recipes/__init__.py").write_text("")
        (bench.folder / "recipes/sft.py").write_text(self.SCRIPT)
        (bench.folder / "d.jsonl").write_text("{}")
        self.recipe(bench)
        bench.write({"name": "sft", "recipe": "sft.yaml"})
        return bench

    def recipe(self, bench: Bench, **more) -> None:
        recipe = {
            "stage": "sft",
            "output_dir": "runs/sft",
            "model_name_or_path": "m",
            "datasets": [{"path": "d.jsonl"}],
        }
        (bench.folder / "sft.yaml").write_text(yaml.safe_dump(recipe | more))

    def test_unchanged_is_skipped_stale_starts_anew_interrupted_goes_on(self, sft):
        assert sft.run() == 0
        assert sft.calls() == ["existed=False,resumed=False"]
        assert sft.run() == 0
        assert sft.calls() == []
        self.recipe(sft, learning_rate=1e-3)
        assert sft.run() == 0
        assert "sft: recipe changed, runs again" in sft.said.getvalue()
        assert sft.calls() == ["existed=True,resumed=False"]  # --overwrite cleared the folder
        (sft.folder / "d.jsonl").write_text("{ }")
        (sft.folder / "break").write_text("")
        assert sft.run() == 9
        assert sft.calls() == ["existed=True,resumed=False"]
        (sft.folder / "break").unlink()
        assert sft.run() == 0
        assert "sft: was interrupted, resumes" in sft.said.getvalue()
        assert sft.calls() == ["existed=True,resumed=True"]
        assert (sft.folder / "runs/report.html").is_file()

    def test_judges_answers_are_kept_where_a_stage_runs_anew(self, sft):
        sft.run()
        for name, statuses in (("calls.sqlite", ["ok", "api_error"]), ("calls_failed.sqlite", ["api_error"])):
            with contextlib.closing(sqlite3.connect(sft.folder / "runs/sft" / name)) as store, store:
                store.execute("CREATE TABLE calls (status TEXT)")
                store.executemany("INSERT INTO calls VALUES (?)", [(status,) for status in statuses])
        self.recipe(sft, learning_rate=1e-3)
        assert sft.run() == 0
        assert "judges' answers of the run before are kept in runs/sft.calls-1" in sft.said.getvalue()
        assert [file.name for file in (sft.folder / "runs/sft.calls-1").iterdir()] == ["calls.sqlite"]
        with contextlib.closing(sqlite3.connect(sft.folder / "runs/sft.calls-1/calls.sqlite")) as store:
            assert store.execute("SELECT count(*) FROM calls").fetchone() == (2,)
        assert sft.run() == 0
        assert "unchanged, skipped" in sft.said.getvalue()

    @pytest.mark.parametrize("left", ["finished", "running"])
    @pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
    def test_a_run_to_be_replaced_is_not_kept_or_resumed(self, sft, left, status):
        """A stage ends before it clears its folder, where it is killed while it starts or refuses its data."""
        if left == "running":
            (sft.folder / "break").write_text("")
        sft.run()
        (sft.folder / "break").unlink(missing_ok=True)
        sft.calls()
        (sft.folder / "d.jsonl").write_text("{ }")
        script = sft.folder / "recipes/sft.py"
        script.write_text("import sys\nsys.exit(1)\n")
        assert sft.run() == 1
        script.write_text(self.SCRIPT)
        state = json.loads((sft.folder / "runs/pipeline.json").read_text())
        state["stages"]["sft"] |= {
            "status": status,
            "dependencies": dependencies(load_pipeline("pipeline.yaml").stages[0]),
        }
        (sft.folder / "runs/pipeline.json").write_text(json.dumps(state))  # as a kill of everything leaves it
        assert sft.run() == 0
        assert sft.calls() == ["existed=True,resumed=False"]

    def test_a_stage_that_finished_before_the_pipeline_could_note_it_is_kept(self, sft):
        assert sft.run() == 0
        sft.calls()
        state = json.loads((sft.folder / "runs/pipeline.json").read_text())
        state["stages"]["sft"]["status"] = "running"
        (sft.folder / "runs/pipeline.json").write_text(json.dumps(state))
        assert sft.run() == 0
        assert sft.calls() == []
        assert sft.state()["sft"]["status"] == "finished"

    def test_a_run_made_by_hand_is_adopted_if_newer_than_what_it_reads(self, sft):
        command = [sys.executable, "-m", "recipes.sft", "--config", "sft.yaml"]
        subprocess.run(command, check=True, cwd=sft.folder)
        assert len(sft.calls()) == 1
        assert sft.run() == 0
        assert sft.calls() == []
        assert sft.state()["sft"]["status"] == "finished"
        (sft.folder / "runs/pipeline.json").unlink()
        later = time.time() + 60
        os.utime(sft.folder / "d.jsonl", (later, later))
        assert sft.run() == 0
        assert len(sft.calls()) == 1

    def test_the_reward_models_accuracy_is_among_the_results(self, sft):
        # The stand-in keeps accounts of any stage; the evaluation names the second of two reward models.
        script = self.SCRIPT.replace("load_recipe('sft', sys.argv[1:])", "check_recipe(sys.argv[2])")
        script = script.replace("load_recipe", "check_recipe").replace("0.5", "recipe.seed / 100")
        for stage in ("reward", "evaluate"):
            (sft.folder / f"recipes/{stage}.py").write_text(script)
        common = {"model_name_or_path": "m", "datasets": [{"path": "d.jsonl"}]}
        for seed in (1, 2):
            recipe = common | {"stage": "reward", "output_dir": f"runs/reward{seed}", "seed": seed}
            (sft.folder / f"reward{seed}.yaml").write_text(yaml.safe_dump(recipe))
        evaluate = common | {
            "stage": "evaluate",
            "output_dir": "runs/evaluate",
            "reward_model_path": "runs/reward2",
            "candidates": [{"name": "p", "model_name_or_path": "q"}],
            "judges": [{"kind": "rules", "function": "json:dumps"}],
        }
        (sft.folder / "evaluate.yaml").write_text(yaml.safe_dump(evaluate))
        sft.write(*({"name": name, "recipe": f"{name}.yaml"} for name in ("reward1", "reward2", "evaluate")))
        assert sft.run() == 0
        assert json.loads((sft.folder / "runs/results.json").read_text())["reward_accuracy"] == 0.02

    @pytest.mark.parametrize(
        "entry", [{"data_files": "rows/*.jsonl"}, {"data_dir": "rows", "data_files": ["a.jsonl", "b*.jsonl"]}]
    )
    def test_a_changed_or_new_file_of_data_files_makes_a_stage_stale(self, sft, entry):
        (sft.folder / "rows").mkdir()
        (sft.folder / "rows/a.jsonl").write_text("{}")
        (sft.folder / "rows/b1.jsonl").write_text("{}")
        self.recipe(sft, datasets=[{"path": "json", **entry}])
        assert sft.run() == 0
        assert len(sft.calls()) == 1
        assert sft.run() == 0
        assert sft.calls() == []
        (sft.folder / "rows/a.jsonl").write_text("{ }")
        assert sft.run() == 0
        assert "sft: rows/a.jsonl changed, runs again" in sft.said.getvalue()
        (sft.folder / "rows/b2.jsonl").write_text("{}")
        assert sft.run() == 0
        assert "sft: rows/b2.jsonl changed, runs again" in sft.said.getvalue()
        assert len(sft.calls()) == 2

    def test_the_dependencies_of_a_stage(self, sft):
        found = dependencies(load_pipeline("pipeline.yaml").stages[0])
        assert found["m"] == "not on disk: m"
        assert {"recipe", "d.jsonl", "library torch", "library transformers"} <= set(found)


def test_ppo_depends_on_everything_that_scores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_rules.py").write_text("def score(prompts, answers): return [0.0 for _ in answers]\n")
    (tmp_path / "rubric.txt").write_text("{prompt} {answer}")
    for name in ("r", "s", "t"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_model.safetensors").write_bytes(name.encode())
    recipe = {
        "stage": "ppo", "output_dir": "o", "model_name_or_path": "m", "datasets": [{"path": "d"}],
        "total_episodes": 64,
        "scorers": [
            {"kind": "reward_model", "model_name_or_path": "r"},
            {"kind": "ensemble", "reward_models": ["s", "t"], "weight": 0.5},
            {"kind": "function", "function": "my_rules:score"},
            {"kind": "http", "url": "http://localhost:1/score"},
            {"kind": "judge", "judge": {"kind": "openai", "model": "m", "prompt": "rubric.txt"}},
        ],
    }  # fmt: skip
    (tmp_path / "ppo.yaml").write_text(yaml.safe_dump(recipe))
    pipeline = {"name": "p", "output_dir": "o", "stages": [{"name": "ppo", "recipe": "ppo.yaml"}]}
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(pipeline))

    def found():
        return dependencies(load_pipeline("pipeline.yaml").stages[0])

    before = found()
    assert {"m", "d", "r", "s", "t", "code of my_rules", "rubric.txt"} <= before.keys()
    (tmp_path / "t" / "adapter_model.safetensors").write_bytes(b"other")
    (tmp_path / "rubric.txt").write_text("{prompt} {answer} from 0 to 10")
    (tmp_path / "my_rules.py").write_text("def score(prompts, answers): return [1.0 for _ in answers]\n")
    recipe["scorers"][3]["url"] = "http://localhost:2/score"
    (tmp_path / "ppo.yaml").write_text(yaml.safe_dump(recipe))
    now = found()
    assert {key for key in now if now[key] != before[key]} == {"t", "code of my_rules", "rubric.txt", "recipe"}


def test_folders_are_hashed_by_what_later_stages_read(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoint-5").mkdir(parents=True)
    (run / "model.safetensors").write_bytes(b"weights")
    (run / "manifest.json").write_text('{"status": "finished", "finished": "monday"}')
    before = content_hash(str(run))
    (run / "manifest.json").write_text('{"status": "finished", "finished": "tuesday"}')
    (run / "metrics.jsonl").write_text("{}\n")
    (run / "checkpoint-5" / "model.safetensors").write_bytes(b"other")
    assert content_hash(str(run)) == before
    (run / "model.safetensors").write_bytes(b"Weights")
    assert content_hash(str(run)) != before
    (run / "model.safetensors").write_bytes(b"weights")
    assert content_hash(str(run)) == before
    (run / "manifest.json").write_text('{"status": "running"}')
    assert content_hash(str(run)) != before


def test_a_modules_code_is_hashed_with_its_neighbours(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "judging_package").mkdir()
    for name in ("__init__", "judge", "words"):
        (tmp_path / "judging_package" / f"{name}.py").write_text("")
    before = code_hash("judging_package.judge")
    (tmp_path / "judging_package" / "words.py").write_text("good = 1\n")
    assert code_hash("judging_package.judge") != before
    assert code_hash("no_such_package.judge") == "not found"


def test_launchers_start_modules():
    python = sys.executable
    assert module_command(["recipes.ppo", "--x"]) == [python, "-m", "recipes.ppo", "--x"]
    assert module_command(["recipes.ppo"], launch="torchrun --nproc-per-node 2") == [
        "torchrun", "--nproc-per-node", "2", "-m", "recipes.ppo",
    ]  # fmt: skip
    assert module_command(["recipes.ppo"], accelerate="launch/ddp.yaml") == [
        python, "-m", "alignment.launch.workers", "--config_file", "launch/ddp.yaml", "-m", "recipes.ppo",
    ]  # fmt: skip


def test_small_words(tmp_path):
    assert [duration(seconds) for seconds in (8.24, 65, 7290)] == ["8.2 s", "1:05", "2:01:30"]
    (tmp_path / "log").write_text("one\n\n 10%|#  \r 20%|## \r\ntwo\n")
    assert tail(tmp_path / "log", 2) == [" 20%|##", "two"]
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 0.12345, "epoch": 1}\n')
    assert last_metrics(tmp_path / "metrics.jsonl") == "step 2  loss 0.1235"
    assert last_metrics(tmp_path / "none.jsonl") == ""
