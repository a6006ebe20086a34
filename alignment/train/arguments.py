"""From a recipe to the trainer's configuration object."""

import dataclasses
import sys
from typing import Any, TypeVar

import torch
from transformers import TrainingArguments

from alignment.config.launched import is_sharded
from alignment.config.library import OUR_DEFAULTS
from alignment.config.schema import Recipe
from alignment.errors import RecipeError, TrainingError
from alignment.policy.precision import gpu_has_bf16
from alignment.run.directory import RunDirectory
from alignment.run.tracking import project_of

Arguments = TypeVar("Arguments", bound=TrainingArguments)


def training_arguments(cls: type[Arguments], recipe: Recipe, run: RunDirectory, **forced: Any) -> Arguments:
    """Build `cls` from our defaults, the recipe's library keys and the values that the stage forces, in this order.

    Our defaults differ from the library's where those do not fit every machine: bf16 and gradient checkpointing only
    on a GPU, no filter that hides NaN from the logs, few checkpoints, no tracker unless the recipe names one.

    Raises: RecipeError if the library refuses a value or a combination; TrainingError if the processes do not connect.
    """
    try:
        arguments = cls(**values_for(cls, recipe, str(run.path), **forced))
    except (ValueError, TypeError) as error:
        raise RecipeError([f"{recipe.source or recipe.stage}: {error}"]) from error
    arguments._n_gpu = min(arguments.n_gpu, 1)  # else one process would use all visible GPUs by DataParallel
    arguments.report_to = [name for name in arguments.report_to if name != "wandb"]  # the run directory reports to W&B
    if arguments.world_size != run.launch.processes:
        raise TrainingError(
            f"the launcher started {run.launch.processes} processes, but Accelerate found {arguments.world_size}: each "
            "would train alone. Start them with accelerate launch and a file of launch/accelerate"
        )
    return arguments


def checkpointing_key(cls: type[Any]) -> str:
    """Name of the checkpointing key of a configuration; transformers 5.23 warns of the older name."""
    names = {field.name for field in dataclasses.fields(cls)}
    return "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"


def values_for(cls: type[Any], recipe: Recipe, folder: str, **forced: Any) -> dict[str, Any]:
    """Return the values of a configuration's keys: `forced` over the recipe's over our defaults."""
    on_gpu, sharded = torch.cuda.is_available(), is_sharded()
    known = {field.name for field in dataclasses.fields(cls)}
    ours: dict[str, Any] = {
        "use_cpu": not on_gpu and not sharded,  # with it Accelerate always runs plain data parallelism
        "ddp_backend": "gloo" if sharded and not on_gpu else None,
        "bf16": gpu_has_bf16() and not recipe.library.get("fp16", False),
        "dataloader_pin_memory": on_gpu,
        **OUR_DEFAULTS,
        "disable_tqdm": not sys.stderr.isatty(),
    }
    ours[checkpointing_key(cls)] = recipe.library.get("gradient_checkpointing", on_gpu)
    named = {"seed": recipe.seed, "run_name": recipe.run_name or folder, "report_to": recipe.report_to}
    named["project"] = project_of(recipe)  # for Trackio; the run directory passes it to W&B
    shared = {
        key: getattr(recipe, key) for key in ("max_length", "trust_remote_code", "loss_type") if hasattr(recipe, key)
    }
    elsewhere = ("gradient_checkpointing", "deepspeed")  # the latter is in the environment, see `Launch`
    library = {key: value for key, value in recipe.library.items() if key not in elsewhere}
    values = {**ours, **named, **shared, **library, **forced, "output_dir": folder}
    return {key: value for key, value in values.items() if key in known}
