"""Damaged run folders: a stage goes on to the same bits or is refused in one line, and so is every reader."""

import functools
import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from alignment.config import load_recipe
from alignment.errors import AlignmentError
from alignment.manifest import MANIFEST
from alignment.policy.model_source import resolve_model
from alignment.report import build
from alignment.run.directory import RunDirectory
from alignment.run.inputs import content_hash
from alignment.run.repair import DAMAGED
from tests.distributed.test_kill import same
from tests.hostile.training import STAGES, Ended, make_world, run_stage, write_recipe

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("folders"))


@pytest.fixture(scope="module")
def finished(world: Path) -> Callable[[str], Path]:
    """Runs a stage to its end once: stage → its folder."""

    @functools.cache
    def run(stage: str) -> Path:
        out = world / "finished" / stage
        ended = run_stage(stage, write_recipe(world, stage, out), world / f"{stage}.log")
        assert ended.code == 0, ended.said
        return out

    return run


def interrupted(finished: Path, out: Path) -> Path:
    """What a kill after the checkpoint of step 4 leaves of a run that went through."""
    shutil.copytree(finished, out)
    shutil.rmtree(out / "checkpoint-6")
    for file in [*out.glob("*.safetensors"), *out.glob("*config.json"), out / "whole.json", out / "README.md"]:
        file.unlink()
    manifest = json.loads((out / MANIFEST).read_text())
    manifest.pop("results")
    manifest.pop("finished")
    manifest["recipe"]["output_dir"] = str(out)
    (out / MANIFEST).write_text(json.dumps({**manifest, "status": "running"}))
    return out


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size // 2)


def change_a_hash(mark: Path) -> None:
    value = json.loads(mark.read_text())
    saved = value["files"]["trainer_state.json"]
    saved["xxh3_128"] = saved["xxh3_128"][::-1]
    mark.write_text(json.dumps(value))


def swap(file: Path) -> None:
    shutil.copyfile(str(file).replace("checkpoint-4", "checkpoint-2"), file)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_dead_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


DAMAGE = {each.__name__: each for each in (flip, cut, swap, empty, a_folder, a_dead_link)} | {"gone": os.unlink}


def opened(stage: str, argv: list[str]) -> RunDirectory:
    return RunDirectory.open(load_recipe(stage, argv))


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("stage", STAGES)
def test_each_file_of_a_checkpoint(world, finished, tmp_path, capsys, stage, damage):
    """Whatever file is damaged, the run resumes from the checkpoint before, and one line names the file."""
    whole = interrupted(finished(stage), tmp_path / "whole")
    files = [file for file in (whole / "checkpoint-4").rglob("*") if file.is_file()]
    names = sorted(str(file.relative_to(whole / "checkpoint-4")) for file in files)
    assert {"whole.json", "trainer_state.json", "optimizer.pt", "scheduler.pt"} <= set(names)
    for name in names:
        out = shutil.copytree(whole, tmp_path / name / "run")
        argv = write_recipe(world, stage, out)
        file = out / "checkpoint-4" / name
        if damage == "swap" and file.read_bytes() == (out / "checkpoint-2" / name).read_bytes():
            continue
        if damage == "flip" and name == "whole.json":
            change_a_hash(file)
        else:
            DAMAGE[damage](file)
        capsys.readouterr()
        run = opened(stage, argv)
        said = capsys.readouterr().err.splitlines()
        assert run.checkpoint == str(out / "checkpoint-2"), (name, said)
        assert len(said) == 2, (name, said)
        assert said[0].startswith(f"{out / 'checkpoint-4'}: ")
        assert name in said[0] or name == "whole.json", (name, said)


def weights(run: Path) -> dict[str, Any]:
    return {file.name: load_file(file) for file in run.glob("*.safetensors")}


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_with_a_damaged_checkpoint_ends_with_the_same_bits(world, finished, tmp_path, stage):
    straight, out = finished(stage), interrupted(finished(stage), tmp_path / "run")
    flip(out / "checkpoint-4" / "optimizer.pt")
    (out / "metrics.jsonl").write_bytes(b"\xff\n" + (out / "metrics.jsonl").read_bytes()[30:])
    ended = run_stage(stage, write_recipe(world, stage, out), tmp_path / "log")
    assert ended.code == 0, ended.said
    assert "optimizer.pt holds other bytes than were saved; it is kept as damaged-checkpoint-4" in ended.said
    assert "metrics.jsonl:1: damaged" in ended.said
    assert weights(straight).keys() == weights(out).keys() != set()
    assert all(same(ours, weights(straight)[name]) for name, ours in weights(out).items())
    kept = {path.name for path in out.iterdir()} - {path.name for path in straight.iterdir()}
    assert kept == {"damaged-checkpoint-4", f"metrics.jsonl{DAMAGED}"}


@pytest.mark.parametrize("stage", STAGES)
def test_without_a_sound_checkpoint_nothing_is_touched(world, finished, tmp_path, stage):
    out = interrupted(finished(stage), tmp_path / "run")
    for step in (2, 4):
        flip(out / f"checkpoint-{step}" / "trainer_state.json")
    before = snapshot(out)
    ended = run_stage(stage, write_recipe(world, stage, out), tmp_path / "log")
    assert_one_line(ended)
    assert "no older checkpoint is undamaged" in ended.last
    assert snapshot(out) == before


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def assert_one_line(ended: Ended) -> None:
    assert ended.code == 1, ended.said
    assert "Traceback" not in ended.said


# Manifests

ODD = {
    "null": None, "number": 3, "negative": -1.5, "nan": float("nan"), "text": "x", "line break": "a\nb", "true": True,
    "list": [], "list of lists": [[1]], "object": {}, "object of null": {"a": None}, "long": "x" * 100_000,
    "large": 10**60, "deep": functools.reduce(lambda inner, _: [inner], range(100), 0), "surrogate": "\ud800",
}  # fmt: skip
RAW = {
    "empty": b"", "no JSON": b"{", "no UTF-8": b"\xff\xfe{}", "a list": b"[]", "a number": b"1", "null": b"null",
    "UTF-16": '{"stage": "sft"}'.encode("utf-16"), "a byte order mark": b"\xef\xbb\xbf{}", "digits": b"9" * 6000,
    "deep": b"[" * 10_000, "twice": b'{"stage": "sft", "stage": "dpo"}', "zeros": b"\0" * 4096,
}  # fmt: skip


def readers(folder: Path, stage: str, argv: list[str], out: Path) -> dict[str, Callable[[], object]]:
    """Everything that reads a run's folder without loading a model."""
    return {
        "open": lambda: opened(stage, argv),
        "report": lambda: build([folder], out),
        "resolve": lambda: resolve_model(str(folder)),
        "hash": lambda: content_hash(str(folder)),
    }


def ends_in_one_line(name: str, read: Callable[[], object]) -> None:
    """Read; an error of ours in one line is well."""
    said = ""
    try:
        read()
    except AlignmentError as error:
        said = str(error)
    assert "\n" not in said, (name, said)
    assert len(said) < 2_000, (name, len(said))


@pytest.mark.parametrize("stage", ["reward", "ppo"])  # the others' manifests have no other fields
def test_each_field_of_a_manifest(world, finished, tmp_path, stage):
    """Whatever a field holds, every reader ends well or in one line."""
    killed = interrupted(finished(stage), tmp_path / "killed")
    for whole, names in ((killed, ("open",)), (finished(stage), ("report", "resolve", "hash"))):
        manifest = json.loads((whole / MANIFEST).read_text())
        inside = [(place, key) for place in ("recipe", "lineage") for key in manifest[place]]
        tried = [((field,), kind) for field in manifest for kind in ODD]
        kinds = itertools.cycle(ODD)  # so many fields that each gets two values
        tried += [(field, kind) for field in inside for kind in itertools.islice(kinds, 2)]
        out = shutil.copytree(whole, tmp_path / "run")
        argv = write_recipe(world, stage, out)
        reading = readers(out, stage, argv, tmp_path / "report.html")
        for field, kind in tried:
            changed = json.loads(json.dumps(manifest))
            functools.reduce(lambda value, key: value[key], field[:-1], changed)[field[-1]] = ODD[kind]
            (out / MANIFEST).write_text(json.dumps(changed))
            for name in names:
                ends_in_one_line(f"{name}: {'.'.join(field)} is {kind}", reading[name])
        shutil.rmtree(out)


@pytest.mark.parametrize("file", [MANIFEST, "metrics.jsonl", "samples.jsonl", "recipe.yaml", "whole.json"])
@pytest.mark.parametrize("stage", STAGES)
def test_each_file_of_a_run(world, finished, tmp_path, stage, file):
    for whole in (interrupted(finished(stage), tmp_path / "killed"), finished(stage)):
        if not (whole / file).exists():
            continue
        for kind, content in [*RAW.items(), ("a folder", None), ("a dead link", None)]:
            out = shutil.copytree(whole, tmp_path / "run")
            argv = write_recipe(world, stage, out)
            (out / file).unlink()
            if content is not None:
                (out / file).write_bytes(content)
            elif kind == "a folder":
                (out / file).mkdir()
            else:
                (out / file).symlink_to("nowhere")
            for name, read in readers(out, stage, argv, tmp_path / "report.html").items():
                ends_in_one_line(f"{name}: {file} is {kind}", read)
            shutil.rmtree(out)


@pytest.mark.parametrize("file", ["metrics.jsonl", "samples.jsonl"])
def test_each_field_of_a_log_in_the_report(finished, tmp_path, file):
    out = shutil.copytree(finished("ppo"), tmp_path / "run")
    rows = [json.loads(line) for line in (out / file).read_text().splitlines()]
    faults = []
    for key, kind in itertools.product(sorted({key for row in rows for key in row}), ODD):
        odd = [{**row, key: ODD[kind]} if place % 2 else row for place, row in enumerate(rows)]
        (out / file).write_text("".join(json.dumps(row) + "\n" for row in odd))
        try:
            build([out], tmp_path / "report.html")
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            faults.append((key, kind, repr(error)))
    assert faults == []
