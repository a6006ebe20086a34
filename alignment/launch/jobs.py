"""Job files: the files of the folder `launch`, with the lines of a job filled in."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alignment.config.documents import read_bytes
from alignment.errors import AlignmentError, RecipeError

WORKERS = "alignment.launch.workers"
PLACES = ("local", "slurm", "kubernetes", "skypilot")
FILES = {"slurm": "slurm/job.sh", "kubernetes": "kubernetes/pytorchjob.yaml", "skypilot": "skypilot/task.yaml"}
SUBMIT = {
    "slurm": ("sbatch",),
    "kubernetes": ("kubectl", "apply", "-f"),
    "skypilot": ("sky", "jobs", "launch", "--yes"),
}
CORES_PER_GPU = 8
ACCELERATOR = "H100"  # in the shipped SkyPilot file


@dataclass(frozen=True, slots=True)
class Job:
    """The command of a job, and its resources."""

    name: str
    nodes: int
    gpus: int  # processes of each node
    config: str  # of Accelerate
    module: str | None  # of a stage, `recipes.ppo`; None: a pipeline
    arguments: tuple[str, ...]  # of the stage, or of `alignment run`
    cpu: bool = False  # request no GPUs
    python: str = "python"
    image: str | None = None  # Kubernetes: the container's
    accelerator: str = ACCELERATOR  # SkyPilot: the kind of GPU

    def command(self, launch: str, each: str = "") -> str:
        """Return the line of shell that runs it; `launch` is the array that starts a node's processes, by `each`."""
        if self.module:
            prefix = f'"${{{each}[@]}}" ' if each else ""
            return f'{prefix}"${{{launch}[@]}}" --module {self.module} {shlex.join(self.arguments)}'
        python = '"$PYTHON"' if each else "python"
        started = f"${{{each}[*]@Q}} ${{{launch}[*]@Q}}" if each else f"${{{launch}[*]@Q}}"
        return f'{python} -m alignment.cli run {shlex.join(self.arguments)} --launch "{started}"'

    def local(self) -> list[str]:
        """Return the command that runs it on this machine."""
        launch = [self.python, "-m", WORKERS, "--config_file", self.config, "--num_processes", str(self.gpus)]
        if self.module:
            return [*launch, "--module", self.module, *self.arguments]
        return [self.python, "-m", "alignment.cli", "run", *self.arguments, "--launch", shlex.join(launch)]


def lines_of(job: Job, place: str) -> dict[str, str | None]:
    """Return the lines that a job replaces: beginning of the line → new line, None to remove it."""
    if place == "slurm":
        return {
            "#SBATCH --job-name=": f"#SBATCH --job-name={job.name}",
            "#SBATCH --nodes=": f"#SBATCH --nodes={job.nodes}",
            "#SBATCH --gpus-per-node=": None if job.cpu else f"#SBATCH --gpus-per-node={job.gpus}",
            "#SBATCH --cpus-per-task=": f"#SBATCH --cpus-per-task={job.gpus * (1 if job.cpu else CORES_PER_GPU)}",
            "PYTHON=": f"PYTHON={shlex.quote(job.python)}",
            "CONFIG=": f"CONFIG={shlex.quote(job.config)}",
            "PROCESSES=": f"PROCESSES={job.gpus}",
            '"${each[@]}" ': f"{job.command('launch', 'each')} &",
        }
    if place == "kubernetes":
        return {
            "  name: ": f"name: {job.name}",
            **_script(job, " " * 18),
            " " * 18 + "NODES=": f"NODES={job.nodes}",
            **({" " * 14 + "image: ": f'image: "{job.image}"'} if job.image else {}),
            **({" " * 14 + "resources:": None, " " * 16 + "limits:": None} if job.cpu else {}),
            " " * 18 + "nvidia.com/gpu: ": None if job.cpu else f"nvidia.com/gpu: {job.gpus}",
        }
    kind = f"cpus: {job.gpus}+" if job.cpu else f"accelerators: {job.accelerator}:{job.gpus}"
    return {
        "name: ": f"name: {job.name}",
        "num_nodes: ": f"num_nodes: {job.nodes}",
        "  accelerators: ": kind,
        **_script(job, "  "),
    }


def _script(job: Job, indent: str) -> dict[str, str | None]:
    return {
        f"{indent}CONFIG=": f"CONFIG={shlex.quote(job.config)}",
        f"{indent}PROCESSES=": f"PROCESSES={job.gpus}",
        f"{indent}exec ": f"exec {job.command('launch')}",
    }


def fill(file: Path, lines: Mapping[str, str | None]) -> str:
    """Return a file's text with some of its lines replaced, each indented as before.

    Raises: AlignmentError if the file, which may be the user's copy, does not have each of them once.
    """
    try:
        text = read_bytes(str(file), "a job").decode("utf-8")
    except (RecipeError, UnicodeDecodeError) as error:
        found = (
            str(error) if isinstance(error, RecipeError) else f"{file}: cannot be read as a job file (it is not UTF-8)"
        )
        raise AlignmentError(f"{found}; copy one of launch/, and change it.") from None
    for begins, line in lines.items():
        pattern = re.compile(rf"^{re.escape(begins)}.*\n", re.MULTILINE)
        indent = begins[: len(begins) - len(begins.lstrip())]
        text = _replace(text, pattern, "" if line is None else f"{indent}{line}\n", f"{file}: {begins.strip()!r}")
    return text


def _replace(text: str, pattern: "re.Pattern[str]", new: str, what: str) -> str:
    times = len(pattern.findall(text))
    if times != 1:
        raise AlignmentError(
            f"{what}: {times or 'no'} lines begin like this, and exactly one is filled in; restore it from the "
            "shipped file, or submit your file by hand."
        )
    return pattern.sub(lambda _: new, text)


def job_file(job: Job, place: str, file: Path) -> str:
    """Return the text of a job's file."""
    text = fill(file, lines_of(job, place))
    if place == "kubernetes":
        pattern = re.compile(r"^    Worker:\n      replicas: \d+\n((?:      .*\n)+)", re.MULTILINE)
        rest = "".join(pattern.findall(text)[:1])
        workers = f"    Worker:\n      replicas: {job.nodes - 1}\n{rest}" if job.nodes > 1 else ""
        text = _replace(text, pattern, workers, f"{file}: 'Worker:', 'replicas:'")
    return text
