"""How axolotl's batches, schedules, precision and trackers become those of a recipe here."""

import math
from importlib.util import find_spec
from typing import Any

from alignment.config.library import trainer_keys
from alignment.config.schema import STAGES
from alignment.importing import training
from alignment.importing.conversion import Conversion
from alignment.importing.keys import (
    OFF_HERE,
    Convert,
    Drop,
    Ours,
    Refuse,
)
from alignment.importing.values import (
    FASTER,
)

WITHOUT_KEYS = {"save": "epoch", "eval": "no"}  # axolotl's strategies where the file gives none
MOST_WARMUP = 100  # steps, of axolotl's default
SAME_OPTIMIZER = ("adamw_8bit",)  # another name
OPTIMIZERS = {"adamw_torch_8bit": "adamw_bnb_8bit", "adamw_8bit": "adamw_bnb_8bit"}


def batch(conversion: Conversion, value: Any) -> Ours:
    """Convert `batch_size`."""
    if value is None:
        raise Drop(OFF_HERE)
    if conversion.given.get("gradient_accumulation_steps") is not None:
        raise Drop("gradient_accumulation_steps is given too")
    return {"gradient_accumulation_steps": max(1, int(value) // conversion.get("micro_batch_size"))}


def micro(conversion: Conversion, value: Any) -> Ours:
    """Convert `micro_batch_size`."""
    ours = {"per_device_train_batch_size": value}
    if conversion.given.get("eval_batch_size") is None and evaluates(conversion):
        ours["per_device_eval_batch_size"] = value
    return ours


def evaluates(conversion: Conversion) -> bool:
    """Whether a file has data to evaluate on."""
    return bool(conversion.get("val_set_size") or conversion.get("test_datasets"))


def epochs(conversion: Conversion, value: Any) -> Ours:
    """Convert `num_epochs`."""
    if conversion.stage in training.ONLINE:
        raise Drop("it is a factor of total_episodes")
    return {"num_train_epochs": float(value)}


def per_epoch(kind: str) -> Convert:
    """Return the conversion of a number of times per epoch into a share of all steps."""

    def convert(conversion: Conversion, value: Any) -> Ours:
        if not value:
            raise Drop(OFF_HERE)
        if conversion.given.get(f"{kind}_steps"):
            raise Drop(f"{kind}_steps is given too")
        if value == 1:
            return {f"{kind}_strategy": "epoch"}
        share = 1.0 / (float(value) * float(conversion.get("num_epochs")))
        return {f"{kind}_strategy": "steps", f"{kind}_steps": round(share, 9)}

    return convert


def every(kind: str) -> Convert:
    """Convert `save_steps`, `eval_steps`."""

    def convert(_: Conversion, value: Any) -> Ours:
        if not value:
            raise Drop(OFF_HERE)
        return {f"{kind}_strategy": "steps", f"{kind}_steps": value}

    return convert


def when(kind: str) -> Convert:
    """Return the conversion of a strategy: the file's, else axolotl's unless a number of steps is given."""

    def convert(conversion: Conversion, value: Any) -> Ours:
        if any(conversion.given.get(key) for key in (f"{kind}_steps", f"{kind}s_per_epoch")):
            raise Drop(f"{kind}_steps or {kind}s_per_epoch is given")
        if value is None:
            value = WITHOUT_KEYS[kind]
        return {f"{kind}_strategy": "no" if value is False else value}

    return convert


def scheduler(conversion: Conversion, value: Any) -> Ours:
    """Convert `lr_scheduler`."""
    if value in ("one_cycle", "rex"):
        raise Refuse(f"{value} is no scheduler of transformers")
    ratio = conversion.given.get("cosine_min_lr_ratio")
    if value in (None, "cosine") and ratio:
        return {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": ratio}}
    return {"lr_scheduler_type": value or "cosine"}


def scheduler_options(_: Conversion, value: Any) -> Ours:
    """Convert `lr_scheduler_kwargs`."""
    if not value:
        raise Drop(OFF_HERE)
    return {"lr_scheduler_kwargs": value}


def optimizer(conversion: Conversion, value: Any) -> Ours:
    """Convert `optimizer`."""
    known = trainer_keys(str(STAGES["sft"].TRAINER_CONFIG))["optim"].choices
    name = OPTIMIZERS.get(value, value)
    if name not in known:
        raise Refuse(f"{value} is no optimizer of transformers")
    if name.endswith("_4bit") and find_spec("torchao") is None:
        raise Refuse(f"{value} has its states in 4 bits, which needs `pip install torchao`; adamw_bnb_8bit has 8")
    if name != value and value not in SAME_OPTIMIZER:
        conversion.note("optim", f"{value} at the file: the same states, quantised by bitsandbytes")
    return {"optim": name}


def optimizer_options(_: Conversion, value: Any) -> Ours:
    """Convert `optim_args`."""
    if not value:
        raise Drop(OFF_HERE)
    if isinstance(value, dict):
        value = ",".join(f"{key}={each}" for key, each in value.items())
    return {"optim_args": value}


def warmup(conversion: Conversion, value: Any) -> Ours:
    """Convert `warmup_steps`."""
    if value is None:
        return {}
    return {"warmup_steps": _warmed(value)}


def warmup_ratio(conversion: Conversion, value: Any) -> Ours:
    """Convert `warmup_ratio`."""
    if conversion.given.get("warmup_steps") is not None:
        raise Drop("warmup_steps is given too")
    if conversion.given.get("warmup_ratio") is not None:
        return {"warmup_steps": value or 0}
    if total := _total_steps(conversion):
        conversion.note("warmup_steps", f"default of axolotl: 0.03 of {total} steps, at most {MOST_WARMUP}")
        return {"warmup_steps": _warmed(min(int(0.03 * total), MOST_WARMUP))}
    conversion.note("warmup_steps", f"default of axolotl, which takes at most {MOST_WARMUP} steps; give --rows N")
    return {"warmup_steps": value or 0}


def _total_steps(conversion: Conversion) -> int | None:
    """Return the steps of the run; None where they depend on the data."""
    rows, longest = conversion.options.rows, conversion.given.get("max_steps")
    steps = None
    if rows and not conversion.get("sample_packing"):
        given = conversion.given.get("batch_size") or 0
        batch = conversion.get("micro_batch_size") * conversion.get("gradient_accumulation_steps")
        whole = max(given, batch, 1) * conversion.processes
        steps = math.ceil(rows * float(conversion.get("num_epochs")) / whole)
    known = [number for number in (steps, longest) if number and number > 0]
    return int(min(known)) if known else None


def _warmed(steps: float) -> float:
    """Return the steps that axolotl warms up for: two where one is asked for."""
    return 2 if steps == 1 else steps


def bf16(_: Conversion, value: Any) -> Ours:
    """Convert `bf16`."""
    if not value:
        return {"bf16": False}
    more = {"bf16_full_eval": True} if value == "full" else {}
    return {"bf16": True, "dtype": "bfloat16", **more}


def pure(dtype: str) -> Convert:
    """Convert `bfloat16`, `float16`, `float32`."""

    def convert(_: Conversion, value: Any) -> Ours:
        if not value:
            raise Drop(OFF_HERE)
        return {"dtype": dtype}

    return convert


def fp16(conversion: Conversion, value: Any) -> Ours:
    """Convert `fp16`."""
    if not value or conversion.get("bf16"):
        raise Drop("bf16 is on" if value else OFF_HERE)
    return {"fp16": True, "dtype": "float16"}


def tf32(_: Conversion, value: Any) -> Ours:
    """Convert `tf32`."""
    if value is True:
        return {"tf32": True}
    raise Drop("it is off unless it is true")


def checkpointing(_: Conversion, value: Any) -> Ours:
    """Convert `gradient_checkpointing`."""
    return {"gradient_checkpointing": bool(value)}


def tracker(name: str) -> Convert:
    """Convert `use_wandb`, `use_tensorboard`, `use_mlflow`."""

    def convert(conversion: Conversion, value: Any) -> Ours:
        if not value:
            raise Drop(OFF_HERE)
        known = conversion.recipe.get("report_to")
        names = [*(known if isinstance(known, list) else [known] if known else []), name]
        return {"report_to": list(dict.fromkeys(names))}

    return convert


def project(conversion: Conversion, value: Any) -> Ours:
    """Convert `wandb_project`, `project_name`."""
    if not value:
        raise Drop(OFF_HERE)
    if conversion.given.get("use_wandb") is False:
        raise Drop("use_wandb is off")
    return {**tracker("wandb")(conversion, value), "project": value}


def named(ours: str) -> Convert:
    """Convert `wandb_name`, `wandb_run_id`, `trackio_run_name`."""

    def convert(conversion: Conversion, value: Any) -> Ours:
        if not value:
            raise Drop(OFF_HERE)
        if ours in conversion.recipe:
            raise Drop(f"another key gives {ours}: {conversion.recipe[ours]}")
        return {ours: value}

    return convert


def watch(_: Conversion, value: Any) -> Ours:
    """Convert `wandb_log_model`."""
    if value in (None, False, "", "false"):
        raise Drop(OFF_HERE)
    return {"log_model": True}


def early(_: Conversion, value: Any) -> Ours:
    """Convert `early_stopping_patience`."""
    if not value:
        raise Drop(OFF_HERE)
    return {"early_stopping_patience": value, "load_best_model_at_end": True}


def order(conversion: Conversion, value: Any) -> Ours:
    """Convert `curriculum_sampling`."""
    if not value:
        raise Drop(OFF_HERE)
    if conversion.stage not in ("sft", "pretrain", "reward"):
        raise Refuse("rows are shuffled in this stage, by seed")
    sets = conversion.given.get("datasets") or conversion.given.get("pretraining_dataset") or []
    if len(sets) > 1 and conversion.given.get("shuffle_merged_datasets") is not False:
        raise Drop("the joined data sets are shuffled first, as shuffle_merged_datasets has it")
    return training.in_order(conversion, conversion.given.get("sample_packing"))


def best_model(conversion: Conversion) -> None:
    """Load the best checkpoint at the end as axolotl does: where save_steps is a multiple of eval_steps."""
    recipe, given = conversion.recipe, conversion.given
    if conversion.stage not in ("sft", "pretrain", "reward") or not evaluates(conversion):
        return
    if not recipe.get("load_best_model_at_end"):
        return
    save, evaluation = (_steps_between(conversion, kind) for kind in ("save", "eval"))
    if save and evaluation and save % evaluation == 0:
        recipe |= {"load_best_model_at_end": True, "save_strategy": "steps", "eval_strategy": "steps",
                   "save_steps": save, "eval_steps": evaluation}  # fmt: skip
    elif not given.get("early_stopping_patience"):
        conversion.take_out("load_best_model_at_end", "axolotl does so where save_steps is a multiple of eval_steps")


def _steps_between(conversion: Conversion, kind: str) -> float | None:
    """Return the steps between two checkpoints or evaluations, a share of all below 1; None if there are none."""
    if steps := conversion.given.get(f"{kind}_steps"):
        return float(steps) if steps < 1 else int(steps)
    times = conversion.given.get(f"{kind}s_per_epoch")
    share = 1.0 / (float(times) * float(conversion.get("num_epochs"))) if times else 1.0
    return share if share < 1 else None


def compile(conversion: Conversion, value: Any) -> Ours:
    """Convert `torch_compile`."""
    if value is not True or conversion.stage in training.ONLINE:
        raise Drop(FASTER)
    return {"torch_compile": True}
