"""`alignment launch`: checks a recipe, writes and shows its job file, and submits it with `--submit`."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable

from alignment.config.documents import read_document
from alignment.config.pipelines import is_pipeline
from alignment.config.schema import Recipe
from alignment.errors import AlignmentError
from alignment.launch.files import FOLDER, found, shipped
from alignment.launch.jobs import ACCELERATOR, FILES, SUBMIT, Job, job_file
from alignment.launch.request import Wanted, checked
from alignment.run.files import naming_the_disk, write_atomic
from alignment.secrecy import key_in


def launch(wanted: Wanted, say: Callable[[str], None]) -> int:
    """Write and show a job, and submit it with `--submit`.

    Returns: the exit code of the submitting command.
    Raises: RecipeError with all faults of the options and the recipes, before anything is written.
    """
    recipes = checked(wanted)
    job = _job(wanted, recipes)
    if wanted.place == "local":
        command = job.local()
        say(shlex.join(command))
        return _run_here(command, job) if wanted.submit else 0
    text = job_file(job, wanted.place, wanted.template or shipped(FILES[wanted.place]))
    for number, line in enumerate(text.splitlines(), 1):
        if (kind := key_in(line)) is not None:
            raise AlignmentError(
                f"{wanted.template or wanted.file}: line {number} of the job file holds {kind}, not shown here; "
                "have the job read it from its environment."
            )
    out = wanted.file
    with naming_the_disk(out):
        changed = out.exists() and out.read_bytes() != text.encode()
    if changed:
        raise AlignmentError(
            f"{out}: exists with other content; remove it, or give another path with --out. To fill in a changed "
            "copy of your own, give it as --template."
        )
    write_atomic(out, text)
    command = [*SUBMIT[wanted.place], str(out)]
    say(f"{text}\n# {out}\n{shlex.join(command)}")
    return subprocess.run(command, check=False).returncode if wanted.submit else 0


def _job(wanted: Wanted, recipes: list[Recipe]) -> Job:
    is_stage = not is_pipeline(read_document(wanted.path))
    config = f"{FOLDER}/accelerate/{wanted.chosen}.yaml"
    found(config)
    here = wanted.place in ("local", "slurm")  # where this very Python runs it
    return Job(
        name=wanted.name,
        nodes=wanted.nodes,
        gpus=wanted.gpus,
        config=config,
        module=f"recipes.{recipes[0].stage}" if is_stage else None,
        arguments=(*(("--config",) if is_stage else ()), wanted.path, *wanted.overrides),
        cpu=wanted.chosen == "cpu",
        python=sys.executable if here else "python",
        image=wanted.image,
        accelerator=wanted.accelerator or ACCELERATOR,
    )


def _run_here(command: list[str], job: Job) -> int:
    if not job.cpu:
        import torch

        there = torch.cuda.device_count()
        if there < job.gpus and (there or job.gpus > 1):
            raise AlignmentError(
                f"--gpus {job.gpus}: this machine has {there}; --strategy cpu runs processes without one"
            )
    sys.stdout.flush()
    os.execvp(command[0], command)
