"""`alignment launch` as its user calls it: faults told at once and nothing written; a file, a command, a submission."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from alignment.config.loading import STAGES
from alignment.launch.request import KNOWN
from tests.launch.stand_ins import write_program

ROOT = Path(__file__).parents[2]
SFT = "stage: sft\noutput_dir: runs/sft\nmodel_name_or_path: nowhere/at-all\ndatasets:\n  - path: d.jsonl\n"
PPO = SFT.replace("sft", "ppo") + (
    "reward_model_path: r\ntotal_episodes: 640\nvalue_model: head\nvalue_warmup_updates: 1\n"
)
LABEL = SFT.replace("sft", "label") + "judge: {kind: rules, function: 'judges:shorter'}\n"
PIPELINE = "name: two\noutput_dir: runs\nstages:\n  - {name: sft, recipe: sft.yaml}\n"


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "my"
    place.mkdir()
    for name, text in (
        ("sft", SFT),
        ("label", LABEL),
        ("ppo", PPO),
        ("pipeline", PIPELINE),
        ("outside", PIPELINE.replace("sft.yaml", "../above.yaml")),
        ("pipeline_of_ppo", PIPELINE.replace("sft", "ppo")),
        ("../above", SFT),
        ("bad", SFT + "learning_rat: 1\n"),
    ):
        (place / f"{name}.yaml").write_text(text)
    return place


def launch(folder: Path, *words: str, path: str | None = None) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path or "/nowhere"}
    return subprocess.run(
        [sys.executable, "-m", "alignment.cli", "launch", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (("none.yaml",), ["none.yaml: no such file"]),
        (
            ("bad.yaml", "--on", "slurm", "--gpus", "0"),
            ["bad.yaml:6: learning_rat: no such key", "--gpus 0: at least one is needed"],
        ),
        (
            ("sft.yaml", "--on", "pbs", "--strategy", "zero4"),
            ["--on pbs is not known; give one of local,", "--strategy zero4 is not known"],
        ),
        (("sft.yaml", "--nodes", "2"), ["--nodes 2: --on local is this machine"]),
        (
            ("sft.yaml", "--gpus", "2", "--strategy", "single"),
            ["--strategy single is one process, but --nodes and --gpus make 2"],
        ),
        (("sft.yaml", "--lora_r", "x"), ["--lora_r: must be a whole number, found 'x'"]),
        (
            ("label.yaml", "--on", "slurm", "--gpus", "8"),
            ["stage label runs in one process; launch it with --nodes 1 --gpus 1"],
        ),
        (
            ("pipeline.yaml", "--on", "kubernetes", "--nodes", "2"),
            ["--nodes 2: a pipeline on kubernetes runs on one node"],
        ),
        (
            ("pipeline.yaml", "--learning_rate", "1"),
            ["--learning_rate 1: a pipeline takes only --output_dir VALUE, --seed VALUE"],
        ),
        (("sft.yaml", "--on", "slurm", "--submit"), ["--submit: no sbatch on this machine"]),
        (
            ("sft.yaml", "--on", "kubernetes", "--submit"),
            ["no kubectl on this machine", "name the container's image by --image"],
        ),
        (("sft.yaml", "--on", "slurm", "--template", "x.sh"), ["--template x.sh: no such file"]),
        (
            ("ppo.yaml", "--gpus", "8", "--strategy", "zero2"),
            ["ppo.yaml: value_warmup_updates, value_model: head and DeepSpeed: DeepSpeed keeps the gradients"],
        ),
        (("sft.yaml", "--out", "x.sh"), ["--out and --template are for job files"]),
        (("sft.yaml", "--on", "slurm", "--out", "."), ["--out .: is a folder or not a regular file; give the path"]),
        (
            ("sft.yaml", "--on", "skypilot", "--run_name", "two\nlines", "--accelerator", ""),
            [
                "'two\\nlines': a job file cannot hold line breaks",
                "--accelerator '': is not a kind of GPU; give one such as H100",
            ],
        ),
        (("sft.yaml", "--on", "kubernetes", "--image", "x: y #z"), ["--image 'x: y #z': is not the name of an image"]),
        (("sft.yaml", "--on", "kubernetes", "--image", ""), ["--image '': is not the name of an image"]),
        (
            ("sft.yaml", "--on", "slurm", "--image", "a/b:c", "--accelerator", "H100"),
            [
                "--image is the container's image on Kubernetes; --on slurm",
                "--accelerator is the kind of GPU for SkyPilot",
            ],
        ),
        (
            ("sft.yaml", "--on", "skypilot", "--strategy", "cpu", "--accelerator", "H100"),
            ["--accelerator: --strategy cpu uses no GPUs"],
        ),
        (
            ("../above.yaml", "--on", "kubernetes"),
            ["../above.yaml: is outside the working folder, and a job on kubernetes sees only that; copy"],
        ),
        (
            ("outside.yaml", "--on", "skypilot"),
            ["../above.yaml: the pipeline's recipe is outside the working folder"],
        ),
        (
            ("pipeline.yaml", "--from", "stf", "--only", "sft"),
            ["--from: pipeline.yaml has no stage stf; it has sft", "--from and --only exclude each other"],
        ),
        (
            ("ppo.yaml", "--on", "slurm", "--gpus", "7", "--strategy", "fsdp2"),
            ["does not divide the minibatch of 64 answers on 7 processes; make rollout_batch_size / num_mini_batches"],
        ),
        (
            ("pipeline_of_ppo.yaml", "--on", "slurm", "--nodes", "7", "--strategy", "fsdp2"),
            ["does not divide the minibatch of 64 answers on 7 processes; make rollout_batch_size / num_mini_batches"],
        ),
    ],
)
def test_faults_are_reported_together_and_nothing_is_written(folder, words, messages):
    before = sorted(folder.iterdir())
    done = launch(folder, *words)
    assert done.returncode == 2, done.stderr
    for message in messages:
        assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(folder.iterdir()) == before


def test_a_file_is_written_shown_and_not_overwritten_once_changed(folder):
    done = launch(folder, "sft.yaml", "--on", "slurm", "--gpus", "8", "--strategy", "zero2", "--learning_rate", "1e-6")
    assert done.returncode == 0, done.stderr
    file = folder / "my-sft.slurm.sh"
    assert file.read_text() in done.stdout
    assert done.stdout.endswith("sbatch my-sft.slurm.sh\n")
    assert "CONFIG=launch/accelerate/zero2.yaml\n" in file.read_text()
    assert "--module recipes.sft --config sft.yaml --learning_rate 1e-6 &\n" in file.read_text()
    again = ("sft.yaml", "--on", "slurm", "--gpus", "4")
    file.write_text(file.read_text().replace("24:00:00", "01:00:00"))
    refused = launch(folder, *again)
    assert refused.returncode == 1
    assert "my-sft.slurm.sh: exists with other content" in refused.stderr
    filled = launch(folder, *again, "--template", "my-sft.slurm.sh", "--out", "mine.sh")
    assert filled.returncode == 0, filled.stderr
    assert "--time=01:00:00\n" in (folder / "mine.sh").read_text()
    assert "PROCESSES=4\n" in (folder / "mine.sh").read_text()


@pytest.mark.parametrize(
    ("place", "program", "words"),
    [
        ("slurm", "sbatch", ["my-sft.slurm.sh"]),
        ("kubernetes", "kubectl", ["apply", "-f", "my-sft.kubernetes.yaml"]),
        ("skypilot", "sky", ["jobs", "launch", "--yes", "my-sft.skypilot.yaml"]),
    ],
)
def test_submit_hands_the_file_to_its_scheduler_and_ends_as_that_does(folder, place, program, words):
    place_of_programs = folder.parent / "bin"
    place_of_programs.mkdir()
    write_program(
        place_of_programs / program, "import json, sys\njson.dump(sys.argv[1:], open('asked', 'w'))\nsys.exit(7)\n"
    )
    image = ("--image", "a/b:c") if place == "kubernetes" else ()
    done = launch(folder, "sft.yaml", "--on", place, "--submit", *image, path=str(place_of_programs))
    assert done.returncode == 7, done.stderr
    assert (folder / "asked").read_text() == str(words).replace("'", '"')
    assert (folder / words[-1]).exists()


def test_a_pipeline_is_run_by_the_verb_of_pipelines(folder):
    done = launch(folder, "pipeline.yaml", "--gpus", "2", "--strategy", "cpu", "--seed", "3")
    assert done.returncode == 0, done.stderr
    start = f"'{sys.executable} -m alignment.launch.workers --config_file launch/accelerate/cpu.yaml --num_processes 2'"
    assert done.stdout == f"{sys.executable} -m alignment.cli run pipeline.yaml --seed 3 --launch {start}\n"
    slurm = launch(folder, "pipeline.yaml", "--on", "slurm", "--nodes", "2", "--gpus", "8")
    assert '\n"$PYTHON" -m alignment.cli run pipeline.yaml --launch "${each[*]@Q} ${launch[*]@Q}" &\n' in slurm.stdout


def test_every_stage_has_a_script_that_is_launched():
    for stage in STAGES:
        assert (ROOT / "recipes" / f"{stage}.py").is_file()


def test_a_file_that_is_not_text_is_reported_in_a_line(folder):
    (folder / "bin.sh").write_bytes(b"\xff\xfe")
    for option, said in (
        ("--out", "bin.sh: exists with other content"),
        ("--template", "bin.sh: cannot be read as a job file (it is not UTF-8)"),
    ):
        done = launch(folder, "sft.yaml", "--on", "slurm", option, "bin.sh")
        assert done.returncode == 1
        assert done.stderr.startswith(said)
        assert done.stderr.count("\n") == 1
    assert (folder / "bin.sh").read_bytes() == b"\xff\xfe"


@pytest.mark.parametrize(
    "image", ["nvcr.io/nvidia/pytorch:24.07-py3", "localhost:5000/a/b", "a@sha256:" + "0" * 64, "1"]
)
def test_an_image_is_written_to_the_file_unchanged(folder, image):
    done = launch(folder, "sft.yaml", "--on", "kubernetes", "--image", image, "--out", "x.yaml")
    assert done.returncode == 0, done.stderr
    roles = yaml.safe_load((folder / "x.yaml").read_text())["spec"]["pytorchReplicaSpecs"]
    assert roles["Master"]["template"]["spec"]["containers"][0]["image"] == image


@pytest.mark.parametrize("place", ["kubernetes", "skypilot"])
def test_containers_get_the_recipes_path_in_the_working_folder(folder, place):
    done = launch(folder.parent, str(folder / "sft.yaml"), "--on", place)
    assert done.returncode == 0, done.stderr
    assert "--module recipes.sft --config my/sft.yaml\n" in done.stdout
    assert str(folder) not in done.stdout
    here = launch(folder.parent, str(folder / "sft.yaml"), "--on", "slurm")
    assert f"--config {folder}/sft.yaml &\n" in here.stdout


def test_the_help_names_every_strategy(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "400", "TERM": "dumb"}
    command = [sys.executable, "-m", "alignment.cli", "launch", "--help"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    line = next(line for line in told.splitlines() if "--strategy" in line)
    assert set(KNOWN) <= set(re.findall(r"[a-z0-9-]+", line))
