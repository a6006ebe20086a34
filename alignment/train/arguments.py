"""From a recipe to the trainer's own configuration object."""

import dataclasses
import sys
from typing import Any, TypeVar

import torch
from transformers import TrainingArguments

from alignment.config.launched import is_sharded
from alignment.config.schema import Recipe
from alignment.errors import RecipeError, TrainingError
from alignment.policy.precision import gpu_has_bf16
from alignment.run.directory import RunDirectory
from alignment.run.tracking import project_of

Arguments = TypeVar("Arguments", bound=TrainingArguments)


def training_arguments(cls: type[Arguments], recipe: Recipe, run: RunDirectory, **forced: Any) -> Arguments:
    """Build `cls` from our defaults, then the recipe's library keys, then what the stage itself decides.

    Ours differ from the library's where its defaults do not fit every machine: bf16 and gradient checkpointing only
    on a GPU, no filter that hides NaN from the logs, few checkpoints kept, no tracker unless one is named.

    Raises: RecipeError where the library refuses a value or a combination; TrainingError where processes do not meet.
    """
    try:
        arguments = cls(**values_for(cls, recipe, str(run.path), **forced))
    except (ValueError, TypeError) as error:
        raise RecipeError([f"{recipe.source or recipe.stage}: {error}"]) from error
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one process would else spread over all GPUs in sight, by DataParallel
    arguments.report_to = [name for name in arguments.report_to if name != "wandb"]  # the run's folder reports there
    if arguments.world_size != run.launch.processes:
        raise TrainingError(
            f"the launcher started {run.launch.processes} processes, but Accelerate found {arguments.world_size}: each "
            "would train alone. Start them with accelerate launch and a file of launch/accelerate"
        )
    return arguments


def checkpointing_key(cls: type[Any]) -> str:
    """What a configuration calls checkpointing; transformers 5.23 warns of the name that 5.17 has alone."""
    names = {field.name for field in dataclasses.fields(cls)}
    return "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"


def values_for(cls: type[Any], recipe: Recipe, folder: str, **forced: Any) -> dict[str, Any]:
    """The values of a configuration's keys: ours, the recipe's over them, and over both what is `forced`."""
    on_gpu, sharded = torch.cuda.is_available(), is_sharded()
    known = {field.name for field in dataclasses.fields(cls)}
    ours: dict[str, Any] = {
        "use_cpu": not on_gpu and not sharded,  # with it Accelerate runs plain data parallelism, whatever is asked for
        "ddp_backend": "gloo" if sharded and not on_gpu else None,
        "bf16": gpu_has_bf16() and not recipe.library.get("fp16", False),
        "dataloader_pin_memory": on_gpu,
        "ddp_find_unused_parameters": False,  # what trains is used in every pass; to look for it costs a walk a step
        "logging_nan_inf_filter": False,
        "logging_steps": 10,
        "save_total_limit": 2,
        "disable_tqdm": not sys.stderr.isatty(),
    }
    ours[checkpointing_key(cls)] = recipe.library.get("gradient_checkpointing", on_gpu)
    named = {"seed": recipe.seed, "run_name": recipe.run_name or folder, "report_to": recipe.report_to}
    named["project"] = project_of(recipe)  # Trackio's; W&B is told by the run's folder
    shared = {key: getattr(recipe, key) for key in ("max_length", "trust_remote_code") if hasattr(recipe, key)}
    elsewhere = ("gradient_checkpointing", "deepspeed")  # the latter is in the environment, see `Launch`
    library = {key: value for key, value in recipe.library.items() if key not in elsewhere}
    values = {**ours, **named, **shared, **library, **forced, "output_dir": folder}
    return {key: value for key, value in values.items() if key in known}
