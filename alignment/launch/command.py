"""`alignment launch`: a recipe checked, its job file written and shown, and submitted where that is asked for."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alignment.config.combinations import broken_under, values_of
from alignment.config.documents import read_document
from alignment.config.loading import check_recipe
from alignment.config.pipelines import is_pipeline, load_pipeline
from alignment.config.schema import Recipe
from alignment.errors import AlignmentError, RecipeError
from alignment.launch.files import FOLDER, found, shipped
from alignment.launch.jobs import FILES, PLACES, SUBMIT, Job, job_file
from alignment.planner.machine import STRATEGIES
from alignment.run.files import write_atomic

KNOWN = (*STRATEGIES, "cpu")
ALONE = ("label", "evaluate")  # stages of one process
SUFFIXES = {"slurm": "slurm.sh", "kubernetes": "kubernetes.yaml", "skypilot": "skypilot.yaml"}
OF_PIPELINES = ("output_dir", "seed", "from", "only")  # what `alignment run` takes


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a user asked for."""

    recipe: str
    place: str = "local"
    nodes: int = 1
    gpus: int = 1
    strategy: str | None = None  # None: single, or ddp
    overrides: tuple[str, ...] = ()
    submit: bool = False
    out: Path | None = None  # None: in the working folder, by the recipe's name
    template: Path | None = None  # None: the shipped file
    image: str | None = None
    accelerator: str = "H100"

    @property
    def chosen(self) -> str:
        """The strategy."""
        return self.strategy or ("single" if self.nodes * self.gpus == 1 else "ddp")


def launch(wanted: Wanted, say: Callable[[str], None]) -> int:
    """Write and show a job, and submit it where that is asked for.

    Returns: the exit code of whatever submitted it.
    Raises: RecipeError for every fault of what was asked and of the recipes, before anything is written.
    """
    recipes = _checked(wanted)
    job = _job(wanted, recipes)
    if wanted.place == "local":
        command = job.local()
        say(shlex.join(command))
        return _run_here(command, job) if wanted.submit else 0
    text = job_file(job, wanted.place, wanted.template or shipped(FILES[wanted.place]))
    out = wanted.out or Path(f"{job.name}.{SUFFIXES[wanted.place]}")
    if out.exists() and out.read_text(encoding="utf-8") != text:
        raise AlignmentError(
            f"{out}: exists, and is not what would be written; remove it, or name another by --out. A file that you "
            "changed can be filled again by --template."
        )
    write_atomic(out, text)
    command = [*SUBMIT[wanted.place], str(out)]
    say(f"{text}\n# {out}\n{shlex.join(command)}")
    return subprocess.run(command, check=False).returncode if wanted.submit else 0


def _checked(wanted: Wanted) -> list[Recipe]:
    """The recipe, or a pipeline's recipes, without a fault."""
    faults = []
    recipes: list[Recipe] = []
    try:
        if is_pipeline(read_document(wanted.recipe)):
            told = _pipeline_options(wanted.overrides)
            pipeline = load_pipeline(
                wanted.recipe, told.get("output_dir"), int(told["seed"]) if "seed" in told else None
            )
            recipes = [stage.recipe for stage in pipeline.stages if stage.recipe]
            faults += _faults_of_pipeline(wanted)
        else:
            recipes = [check_recipe(wanted.recipe, wanted.overrides)]
            faults += _faults_of_stage(wanted, recipes[0])
        faults += _faults_of_strategy(wanted, recipes)
    except RecipeError as error:
        faults += error.faults
    faults += _faults_of_request(wanted)
    if faults:
        raise RecipeError(faults)
    return recipes


def _pipeline_options(words: tuple[str, ...]) -> dict[str, str]:
    told = {}
    for flag, value in zip(words[::2], words[1::2], strict=False):
        told[flag.removeprefix("--")] = value
    if len(words) % 2 or not set(told) <= set(OF_PIPELINES):
        raise RecipeError(
            [f"{shlex.join(words)}: a pipeline takes {', '.join(f'--{key} VALUE' for key in OF_PIPELINES)} alone; "
             "keys of its stages stand in their recipes"]
        )  # fmt: skip
    if not told.get("seed", "0").isdigit():
        raise RecipeError([f"--seed {told['seed']}: must be a whole number from 0 on"])
    return told


def _faults_of_request(wanted: Wanted) -> list[str]:
    faults = []
    total = wanted.nodes * wanted.gpus
    if wanted.place not in PLACES:
        faults.append(f"--on {wanted.place} is not known; give one of {', '.join(PLACES)}")
    if wanted.chosen not in KNOWN:
        faults.append(f"--strategy {wanted.chosen} is not known; give one of {', '.join(KNOWN)}")
    faults += [
        f"--{name} {value}: at least one is needed"
        for name, value in (("nodes", wanted.nodes), ("gpus", wanted.gpus))
        if value < 1
    ]
    if wanted.chosen == "single" and total > 1:
        faults.append(f"--strategy single is one process, but --nodes and --gpus make {total}; use ddp, zero2 or zero3")
    if wanted.place == "local" and wanted.nodes > 1:
        faults.append(f"--nodes {wanted.nodes}: --on local is this machine; use slurm, kubernetes or skypilot")
    if wanted.place == "local" and (wanted.out or wanted.template):
        faults.append("--out and --template are for job files; --on local has none, but a command")
    if wanted.submit and wanted.place in SUBMIT and not shutil.which(SUBMIT[wanted.place][0]):
        faults.append(
            f"--submit: no {SUBMIT[wanted.place][0]} on this machine; without --submit the file is written, to submit "
            "it where there is one"
        )
    if wanted.submit and wanted.place == "kubernetes" and not (wanted.image or wanted.template):
        faults.append("--submit: name the container's image by --image, or give a changed file by --template")
    if wanted.template and not wanted.template.is_file():
        faults.append(f"--template {wanted.template}: no such file")
    return faults


def _faults_of_stage(wanted: Wanted, recipe: Recipe) -> list[str]:
    if recipe.stage in ALONE and wanted.nodes * wanted.gpus > 1:
        return [f"stage {recipe.stage} runs in one process; launch it with --nodes 1 --gpus 1"]
    return []


def _faults_of_strategy(wanted: Wanted, recipes: list[Recipe]) -> list[str]:
    """What cannot go together under the strategy; labelling and evaluation run under none."""
    strategy, gpu = ("ddp", False) if wanted.chosen == "cpu" else (wanted.chosen, True)
    return [
        f"{recipe.source or recipe.stage}: {one.what.replace('`', '')}: {one.reason}; {one.remedy}"
        for recipe in recipes
        if recipe.stage not in ALONE
        for one in broken_under(recipe.stage, values_of(recipe), strategy, gpu=gpu)
    ]


def _faults_of_pipeline(wanted: Wanted) -> list[str]:
    if wanted.nodes > 1 and wanted.place in ("kubernetes", "skypilot"):
        return [
            f"--nodes {wanted.nodes}: on {wanted.place} nothing starts a pipeline's stages on all nodes; launch one "
            "stage after the other, or the pipeline with --nodes 1"
        ]
    return []


def _job(wanted: Wanted, recipes: list[Recipe]) -> Job:
    is_stage = not is_pipeline(read_document(wanted.recipe))
    chosen = wanted.chosen
    if any(getattr(recipe, "load_in_4bit", False) for recipe in recipes) and _is_shipped(f"{chosen}-qlora"):
        chosen += "-qlora"
    config = f"{FOLDER}/accelerate/{chosen}.yaml"
    found(config)
    here = wanted.place in ("local", "slurm")  # where this very Python runs it
    return Job(
        name=_name(wanted.recipe),
        nodes=wanted.nodes,
        gpus=wanted.gpus,
        config=config,
        module=f"recipes.{recipes[0].stage}" if is_stage else None,
        arguments=(*(("--config",) if is_stage else ()), wanted.recipe, *wanted.overrides),
        cpu=wanted.chosen == "cpu",
        python=sys.executable if here else "python",
        image=wanted.image,
        accelerator=wanted.accelerator,
    )


def _is_shipped(strategy: str) -> bool:
    try:
        shipped(f"accelerate/{strategy}.yaml")
    except AlignmentError:
        return False
    return True


def _name(recipe: str) -> str:
    """A name that every scheduler takes: small letters, digits and dashes, a letter first."""
    path = Path(recipe)
    words = re.sub(r"[^a-z0-9]+", "-", f"{path.resolve().parent.name}-{path.stem}".lower())[-40:]
    return words.lstrip("-0123456789").rstrip("-") or "alignment"


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
