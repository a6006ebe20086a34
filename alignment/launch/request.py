"""The options of `alignment launch`, and their checks."""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alignment.config.documents import read_document
from alignment.config.loading import check_recipe
from alignment.config.pipelines import Pipeline, is_pipeline, load_pipeline
from alignment.config.rules.combinations import broken_under, values_of
from alignment.config.schema import Recipe
from alignment.config.secrets import refuse_keys_in_words
from alignment.errors import RecipeError
from alignment.launch.jobs import PLACES, SUBMIT
from alignment.planner.machine import MOST_GPUS, STRATEGIES
from alignment.strict_json import shown
from alignment.train.trial import require_accepted

KNOWN = (*STRATEGIES, "cpu")
IN_CONTAINERS = ("kubernetes", "skypilot")  # a job there sees only the working folder of this machine
SUFFIXES = {"slurm": "slurm.sh", "kubernetes": "kubernetes.yaml", "skypilot": "skypilot.yaml"}
REFERENCE = (
    re.compile(  # of an image: https://pkg.go.dev/github.com/distribution/reference, without its limits of length
        r"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]*)?"
        r"(?:@sha256:[0-9a-f]{64})?"
    )
)
KIND = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")  # of a GPU, `A100-80GB`
OF_PIPELINES = ("output_dir", "seed", "from", "only")  # what `alignment run` takes


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of `alignment launch`."""

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
    accelerator: str | None = None

    @property
    def chosen(self) -> str:
        """The strategy."""
        return self.strategy if self.strategy is not None else "single" if self.nodes * self.gpus == 1 else "ddp"

    @property
    def path(self) -> str:
        """The recipe's path in the job; a container has the working folder at another path."""
        return (_within(self.recipe) if self.place in IN_CONTAINERS else None) or self.recipe

    @property
    def name(self) -> str:
        """A name that every scheduler accepts: lowercase letters, digits and dashes, a letter first."""
        path = Path(self.recipe)
        words = re.sub(r"[^a-z0-9]+", "-", f"{path.resolve().parent.name}-{path.stem}".lower())[-40:]
        return words.lstrip("-0123456789").rstrip("-") or "alignment"

    @property
    def file(self) -> Path:
        """The path of the job file."""
        return self.out or Path(f"{self.name}.{SUFFIXES[self.place]}")


def checked(wanted: Wanted) -> list[Recipe]:
    """Return the recipe, or a pipeline's recipes, after checking them."""
    refuse_keys_in_words((*wanted.overrides, wanted.recipe, wanted.image or "", wanted.accelerator or ""))
    faults = []
    recipes: list[Recipe] = []
    try:
        if is_pipeline(read_document(wanted.path)):
            told = _pipeline_options(wanted.overrides)
            with _among(wanted.nodes * wanted.gpus):
                pipeline = load_pipeline(
                    wanted.path, told.get("output_dir"), int(told["seed"]) if "seed" in told else None
                )
            recipes = [stage.recipe for stage in pipeline.stages if stage.recipe]
            faults += _faults_of_pipeline(wanted, pipeline, told)
        else:
            with _among(wanted.nodes * wanted.gpus):
                recipes = [check_recipe(wanted.path, wanted.overrides)]
            faults += _faults_of_stage(wanted, recipes[0])
        faults += _faults_of_strategy(wanted, recipes)
        require_accepted(recipes, here=False)
    except RecipeError as error:
        faults += error.faults
    faults += _faults_of_request(wanted)
    if faults:
        raise RecipeError(faults)
    return recipes


@contextmanager
def _among(processes: int) -> Iterator[None]:
    """Check recipes with the environment variables of the job, in which the launcher sets the number of processes."""
    before = os.environ.get("WORLD_SIZE")
    os.environ["WORLD_SIZE"] = str(max(1, processes))
    try:
        yield
    finally:
        del os.environ["WORLD_SIZE"]
        if before is not None:
            os.environ["WORLD_SIZE"] = before


def _within(recipe: str) -> str | None:
    """Return a path relative to the working folder; None if it is outside."""
    for path in (os.path.abspath(recipe), os.path.realpath(recipe)):
        relative = os.path.relpath(path)
        if relative.split(os.sep)[0] != os.pardir:
            return relative
    return None


def _pipeline_options(words: tuple[str, ...]) -> dict[str, str]:
    told = {}
    for flag, value in zip(words[::2], words[1::2], strict=False):
        told[flag.removeprefix("--")] = value
    if len(words) % 2 or not set(told) <= set(OF_PIPELINES):
        raise RecipeError(
            [f"{shlex.join(words)}: a pipeline takes only {', '.join(f'--{key} VALUE' for key in OF_PIPELINES)}; "
             "set keys of its stages in their recipes"]
        )  # fmt: skip
    seed = told.get("seed", "0")
    if not seed.isdecimal() or len(seed) > 10:  # the recipes have its upper limit
        raise RecipeError([f"--seed {shown(seed)}: must be a whole number from 0 on, of at most ten digits"])
    return told


def _faults_of_request(wanted: Wanted) -> list[str]:
    faults = []
    total = wanted.nodes * wanted.gpus
    if wanted.place not in PLACES:
        faults.append(f"--on {wanted.place} is not known; give one of {', '.join(PLACES)}")
    if wanted.chosen not in KNOWN:
        faults.append(f"--strategy {wanted.chosen} is not known; give one of {', '.join(KNOWN)}")
    faults += [
        f"--{name} {shown(value)}: {'at least one is needed' if value < 1 else f'at most {MOST_GPUS} are launched'}"
        for name, value in (("nodes", wanted.nodes), ("gpus", wanted.gpus))
        if not 1 <= value <= MOST_GPUS
    ]
    if wanted.chosen == "single" and total > 1:
        faults.append(f"--strategy single is one process, but --nodes and --gpus make {total}; use ddp, zero2 or zero3")
    if wanted.place == "local" and wanted.nodes > 1:
        faults.append(f"--nodes {wanted.nodes}: --on local is this machine; use slurm, kubernetes or skypilot")
    if wanted.place == "local" and (wanted.out or wanted.template):
        faults.append("--out and --template are for job files; --on local prints a command and has no job file")
    if wanted.place in SUBMIT:
        faults += _faults_of_file(wanted)
    faults += _faults_of_container(wanted)
    if wanted.submit and wanted.place in SUBMIT and not shutil.which(SUBMIT[wanted.place][0]):
        faults.append(
            f"--submit: no {SUBMIT[wanted.place][0]} on this machine; leave out --submit to write the file, and submit "
            "it on a machine that has the command"
        )
    if wanted.submit and wanted.place == "kubernetes" and not (wanted.image or wanted.template):
        faults.append("--submit: name the container's image by --image, or give a changed file by --template")
    if wanted.template and not os.path.isfile(wanted.template):
        faults.append(f"--template {wanted.template}: no such file")
    return faults


def _faults_of_file(wanted: Wanted) -> list[str]:
    faults = [
        f"{word!r}: a job file cannot hold line breaks or other unprintable characters; set the key in the recipe"
        for word in (wanted.recipe, *wanted.overrides)
        if not word.isprintable()
    ]
    if os.path.exists(wanted.file) and not os.path.isfile(wanted.file):
        faults.append(f"--out {wanted.file}: is a folder or not a regular file; give the path of a file")
    if wanted.place in IN_CONTAINERS and _within(wanted.recipe) is None:
        faults.append(
            f"{wanted.recipe}: is outside the working folder, and a job on {wanted.place} sees only that; copy "
            "the recipe into it, or launch from a parent folder"
        )
    return faults


def _faults_of_container(wanted: Wanted) -> list[str]:
    """Return the faults of --image and --accelerator."""
    faults = []
    image, kind = wanted.image, wanted.accelerator
    if image is not None and wanted.place != "kubernetes":
        faults.append(f"--image is the container's image on Kubernetes; --on {wanted.place} does not use it")
    elif image is not None and not REFERENCE.fullmatch(image):
        faults.append(f"--image {image!r}: is not the name of an image; give one such as registry/me/alignment:1")
    if kind is not None and wanted.place != "skypilot":
        faults.append(f"--accelerator is the kind of GPU for SkyPilot; --on {wanted.place} does not use it")
    elif kind is not None and wanted.chosen == "cpu":
        faults.append("--accelerator: --strategy cpu uses no GPUs; leave out one of the two")
    elif kind is not None and not KIND.fullmatch(kind):
        faults.append(
            f"--accelerator {kind!r}: is not a kind of GPU; give one such as H100 (`sky gpus list` lists them)"
        )
    return faults


def _faults_of_stage(wanted: Wanted, recipe: Recipe) -> list[str]:
    if recipe.STAGE.one_process and wanted.nodes * wanted.gpus > 1:
        return [f"stage {recipe.stage} runs in one process; launch it with --nodes 1 --gpus 1"]
    return []


def _faults_of_strategy(wanted: Wanted, recipes: list[Recipe]) -> list[str]:
    """Return the impossible combinations under the strategy; labelling and evaluation have no strategy."""
    strategy, gpu = ("ddp", False) if wanted.chosen == "cpu" else (wanted.chosen, True)
    return [
        f"{recipe.source or recipe.stage}: {one.what.replace('`', '')}: {one.reason}; {one.remedy}"
        for recipe in recipes
        if not recipe.STAGE.one_process
        for one in broken_under(recipe.stage, values_of(recipe), strategy, gpu=gpu)
    ]


def _faults_of_pipeline(wanted: Wanted, pipeline: Pipeline, told: dict[str, str]) -> list[str]:
    faults: list[str] = []
    try:
        pipeline.selected(wanted.recipe, told.get("from"), told.get("only"))
    except RecipeError as error:
        faults += error.faults
    if wanted.nodes > 1 and wanted.place in IN_CONTAINERS:
        faults.append(
            f"--nodes {wanted.nodes}: a pipeline on {wanted.place} runs on one node; launch its stages one after the "
            "other, or the pipeline with --nodes 1"
        )
    if wanted.place in IN_CONTAINERS:
        faults += [
            f"{path}: the pipeline's recipe is outside the working folder, and a job on {wanted.place} sees only "
            "that; copy the recipe into it, and give its path relative to the pipeline"
            for path in dict.fromkeys(stage.recipe.source for stage in pipeline.stages if stage.recipe)
            if os.path.isabs(path) or _within(path) is None
        ]
    return faults
