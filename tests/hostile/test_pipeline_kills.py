"""`alignment run`, killed at every kind of file event of its own and started again: each stage's work is done once.

The stages are stand-ins that keep a run's accounts: what they do takes no time, and `calls.txt` tells what was done.
"""

import io
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from alignment.manifest import read_manifest
from tests import killing
from tests.kill_runs import some

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(3600)]
SCRIPT = """
import sys
from pathlib import Path
from alignment.config import load_recipe
from alignment.run.directory import RunDirectory
from alignment.run.script import script
def main():
    recipe = load_recipe('sft', sys.argv[1:])
    run = RunDirectory.open(recipe)
    data = Path(recipe.datasets[0].path)
    (run.path / 'half').write_text(data.read_text())
    (run.path / 'model.safetensors').write_text((run.path / 'half').read_text())
    run.finish(read=data.read_text())
    with Path('calls.txt').open('a') as calls:
        calls.write(run.path.name + '\\n')
script(main)
"""
SPAWNED = multiprocessing.get_context("spawn")


def run_pipeline(folder: str, log: str, at: int | None) -> None:
    os.chdir(folder)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
    import sys

    sys.path.insert(0, folder)
    from alignment.pipeline import runner as pipeline

    killing.arm(f"{folder}/runs", log, at)
    sys.exit(pipeline.run_pipeline("pipeline.yaml", console=Console(file=io.StringIO())))


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "recipes").mkdir()
        (folder / "recipes/__init__.py").write_text("")
        (folder / "recipes/sft.py").write_text(SCRIPT)
        for name, data in (("a", "data.jsonl"), ("b", "runs/a/half")):
            recipe = {
                "stage": "sft", "output_dir": f"runs/{name}", "model_name_or_path": "m", "datasets": [{"path": data}]
            }  # fmt: skip
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        stages = [{"name": name, "recipe": f"{name}.yaml"} for name in ("a", "b")]
        whole = {"name": "two", "output_dir": "runs", "stages": stages}
        (folder / "pipeline.yaml").write_text(yaml.safe_dump(whole))

    def data(self, text: str) -> None:
        (self.folder / "data.jsonl").write_text(text)

    def start(self, at: int | None = None) -> tuple[int | None, list[str]]:
        log = self.folder / "moments"
        log.unlink(missing_ok=True)
        process = SPAWNED.Process(target=run_pipeline, args=(str(self.folder), str(log), at))
        process.start()
        process.join(240)
        return process.exitcode, killing.moments_of(log)

    def calls(self) -> list[str]:
        file = self.folder / "calls.txt"
        return file.read_text().split() if file.is_file() else []


@pytest.mark.parametrize("before", [None, "old"])
def test_each_stage_is_done_once_and_with_the_data_that_is_there(tmp_path: Path, before: str | None) -> None:
    """With `before`, runs of older data stand there, which must be neither kept nor gone on with."""
    bench = Bench(tmp_path)

    def begin() -> None:
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        (tmp_path / "calls.txt").unlink(missing_ok=True)
        if before:
            bench.data(before)
            assert bench.start()[0] == 0
            (tmp_path / "calls.txt").unlink()
        bench.data("new")

    begin()
    code, moments = bench.start()
    assert code == 0
    for place in some(killing.windows(moments), 8):
        begin()
        assert bench.start(place)[0] == -signal.SIGKILL, moments[place - 1]
        time.sleep(0.2)  # a stage that was under way is told by the kernel
        assert bench.start()[0] == 0, moments[place - 1]
        assert sorted(set(bench.calls())) == ["a", "b"], moments[place - 1]
        for stage in ("a", "b"):
            manifest = read_manifest(tmp_path / "runs" / stage)
            assert (manifest["status"], manifest["results"]) == ("finished", {"read": "new"}), moments[place - 1]
        state = json.loads((tmp_path / "runs/pipeline.json").read_text())["stages"]
        assert [record["status"] for record in state.values()] == ["finished"] * 2, moments[place - 1]
        assert not list((tmp_path / "runs").glob(".*.partial")), moments[place - 1]
        done = bench.calls()
        assert bench.start()[0] == 0
        assert bench.calls() == done, moments[place - 1]  # nothing is left to do
