"""A recipe's training keys tried on one small layer, before data, model or the run's folder are touched.

The libraries refuse many values only while they run: betas of an optimizer, arguments of a scheduler, a compiler's
name. Here their own objects are built from the recipe and take a few steps; what they raise is a fault of the recipe.
"""

import copy
import dataclasses
import importlib
import importlib.util
import logging
import math
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from alignment.config.documents import Document, read_document
from alignment.config.rules.ranges import RANGES
from alignment.config.schema import Recipe
from alignment.errors import RecipeError

PLAIN = frozenset(RANGES) | {  # keys that need no trial: their rules are complete
    "lr_scheduler_type", "logging_strategy", "eval_strategy", "save_strategy", "bf16", "fp16", "gradient_checkpointing",
    "activation_checkpointing", "load_best_model_at_end", "logging_first_step", "disable_tqdm", "save_only_model",
    "train_sampling_strategy", "dataloader_drop_last", "dataloader_pin_memory", "use_cpu", "full_determinism",
    "packing", "packing_strategy", "padding_free", "loss_type", "eval_on_start", "eval_packing", "log_level",
    "disable_dropout", "precompute_ref_log_probs", "sync_ref_model", "f_divergence_type", "use_weighting",
    "average_tokens_across_devices", "greater_is_better", "deepspeed",
}  # fmt: skip
NEED_GPU = {
    "activation_offloading": "moves activations off a GPU",
    "fp16": "computes in float16 on a GPU alone",
}
STEPS = 20  # of the trial's schedule


def require_accepted(recipes: Iterable[Recipe], *, here: bool = True) -> None:
    """Refuse recipes whose training keys the libraries refuse.

    Args:
        here: whether they run on this machine; elsewhere there may be GPUs.

    Raises: RecipeError with a line for each key at fault.
    """
    faults = [fault for recipe in recipes for fault in _faults(recipe, here)]
    if faults:
        raise RecipeError(list(dict.fromkeys(faults)))


def _faults(recipe: Recipe, here: bool) -> list[str]:
    missing = list(_missing_here(recipe.library)) if here else []
    if missing:
        return [_document(recipe).fault((key,), told) for key, told in missing]
    tried = {key: value for key, value in recipe.library.items() if key not in PLAIN}
    if recipe.TRAINER_CONFIG is None or not _needs_trial(recipe, tried):
        return []
    error = _tried(recipe, recipe.library, here)
    if error is None:
        return []
    document = _document(recipe)
    return [document.fault((key,) if key else (), told) for key, told in _blamed(recipe, tried, here, error)]


def _missing_here(library: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys that need what this machine, or this start, does not have."""
    if library.get("deepspeed") and importlib.util.find_spec("deepspeed") is None:
        yield "deepspeed", 'needs DeepSpeed, which is not installed; run `pip install "alignment-stack[deepspeed]"`'
    if library.get("ddp_backend") and os.environ.get("WORLD_SIZE", "1") == "1":
        yield "ddp_backend", "is for several processes, and this start has one; take it out, or start several"
    needs_gpu = {key: why for key, why in NEED_GPU.items() if library.get(key)}
    if needs_gpu:
        import torch

        if not torch.cuda.is_available():
            yield from ((key, f"{why}, and there is none here; take it out") for key, why in needs_gpu.items())


def _needs_trial(recipe: Recipe, tried: dict[str, Any]) -> bool:
    return bool(tried) or recipe.library.get("lr_scheduler_type", "linear") not in ("linear", "cosine", "constant")


def _blamed(
    recipe: Recipe, tried: dict[str, Any], here: bool, error: BaseException
) -> Iterator[tuple[str | None, str]]:
    """The keys that the libraries refuse alone; else that without which they take the recipe; each with their words."""
    plain = {key: value for key, value in recipe.library.items() if key not in tried}
    alone = {key: _tried(recipe, {**plain, key: value}, here) for key, value in tried.items()}
    if any(alone.values()):
        yield from ((key, _first_line(each)) for key, each in alone.items() if each is not None)
        return
    for key in (*tried, "lr_scheduler_type"):
        rest = {name: value for name, value in recipe.library.items() if name != key}
        if key in recipe.library and _tried(recipe, rest, here) is None:
            yield key, _first_line(error)
            return
    yield None, _first_line(error)


def _tried(recipe: Recipe, library: dict[str, Any], here: bool) -> BaseException | None:
    """Build and step what the keys describe; what the libraries raise, whatever it is, is the answer."""
    given = {key: copy.deepcopy(value) for key, value in library.items() if here or key != "tf32"}
    with undisturbed():
        try:
            arguments = trial_arguments(recipe.model_copy(update={"library": given}))
            _require_packages(arguments)
            _require_compiler(arguments, here)
            _require_recomputation(arguments)
            _step(arguments)
        except (Exception, SystemExit) as error:
            return error
    return None


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the environment, torch's switches and the user's terminal as they were."""
    import torch

    before, switches = dict(os.environ), torch.backends.cuda.matmul.allow_tf32
    quiet = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        torch.backends.cuda.matmul.allow_tf32 = switches
        logging.disable(quiet)


def trial_arguments(recipe: Recipe, folder: str = os.devnull, **forced: Any) -> Any:
    """Build the trainer's configuration without a connection to other processes and without a device.

    Args:
        folder: the output_dir. forced: values over the recipe's.
    """
    import torch

    from alignment.train.arguments import values_for

    module, _, name = str(recipe.TRAINER_CONFIG).partition(":")
    cls = getattr(importlib.import_module(module), name)
    alone = {
        "_setup_devices": torch.device("cpu"),
        "_n_gpu": 0,
        "distributed_state": None,
        "deepspeed_plugin": None,
    }
    trial = type(cls.__name__, (cls,), alone)
    forced |= {"use_cpu": True, "report_to": "none", "deepspeed": None, "ddp_backend": None}
    if not torch.cuda.is_available():
        forced["bf16"] = forced["fp16"] = False
    return trial(**values_for(cls, recipe, folder, **forced))


def _step(arguments: Any) -> None:
    """Take a few steps with the recipe's optimizer, where it runs on a CPU, and its scheduler."""
    import torch
    from transformers import Trainer, get_scheduler

    layer = torch.nn.Linear(4, 4)
    cls, options = Trainer.get_optimizer_cls_and_kwargs(arguments, layer)
    if arguments.optim_args:
        without = dataclasses.replace(arguments, optim_args=None)
        if Trainer.get_optimizer_cls_and_kwargs(without, layer)[1] == options:
            raise ValueError(f"has no effect with optim {arguments.optim.value}; take it out")
    plain = cls.__module__.startswith("torch.optim") or cls.__name__ == "Adafactor"
    if plain:
        groups = [{"params": list(layer.parameters()), "weight_decay": arguments.weight_decay}]
        optimizer = cls(groups, **options)
    else:
        optimizer = torch.optim.SGD(layer.parameters(), lr=arguments.learning_rate)
    scheduler = get_scheduler(
        arguments.lr_scheduler_type,
        optimizer=optimizer,
        num_warmup_steps=min(arguments.get_warmup_steps(STEPS), STEPS),
        num_training_steps=STEPS,
        scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
    )
    on_metric = arguments.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy")
    for _ in range(STEPS):
        layer(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step(1.0) if on_metric else scheduler.step()
        rates = [float(group["lr"]) for group in optimizer.param_groups if group["lr"] is not None]
        if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
            raise ValueError(f"the learning rate becomes {rates[0]:.6g}, which must be finite and at least 0")


def _require_packages(arguments: Any) -> None:
    for key, package in (("use_liger_kernel", "liger_kernel"),):
        if getattr(arguments, key) and importlib.util.find_spec(package) is None:
            raise ImportError(f"needs {package}, which is not installed; run `pip install {package}`")


def _require_compiler(arguments: Any, here: bool) -> None:
    if not arguments.torch_compile:
        return
    from torch import _dynamo, compile, cuda

    known = _dynamo.list_backends(exclude_tags=())
    if arguments.torch_compile_backend not in known:
        raise ValueError(f"{arguments.torch_compile_backend!r} is no backend of torch.compile; give one of {known}")
    compile(backend=arguments.torch_compile_backend, mode=arguments.torch_compile_mode)(lambda x: x)
    if here and arguments.torch_compile_backend == "inductor" and not cuda.is_available():
        from torch._inductor.cpp_builder import get_cpp_compiler

        get_cpp_compiler()


def _require_recomputation(arguments: Any) -> None:
    """Try the arguments of gradient checkpointing."""
    if not arguments.gradient_checkpointing_kwargs:
        return
    import torch
    from torch.utils.checkpoint import checkpoint

    again: Any = partial(checkpoint, **arguments.gradient_checkpointing_kwargs)
    again(torch.nn.Linear(2, 2), torch.ones(1, 2, requires_grad=True)).sum().backward()


def _document(recipe: Recipe) -> Document:
    """The recipe's file, for the lines of its keys; a recipe that has none has no lines."""
    try:
        return read_document(recipe.source)
    except RecipeError:
        return Document(recipe.source or recipe.stage, {})


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"the library refuses it: {text[:300]}" + ("..." if len(text) > 300 else "")
