"""A recipe on this machine: its model, data, batches, disk, tracker."""

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from alignment.config.rules.combinations import broken_under, values_of
from alignment.config.schema import PretrainRecipe, Recipe
from alignment.config.schema.prepare import PrepareRecipe
from alignment.doctor.documents import begins_and_ends
from alignment.doctor.findings import Finding, fault, note, ok, warning
from alignment.doctor.rows import SAMPLE, TryScorers, readable, rows, scorers
from alignment.errors import AlignmentError
from alignment.hub import endpoint, is_offline, local, may_be_on_hub, reach
from alignment.planner.advice import verdict
from alignment.planner.machine import GIB, Machine
from alignment.planner.memory import StagePlan, plan_stage
from alignment.policy.base import require_method, task_of
from alignment.policy.load_roles import require_policy
from alignment.policy.model_source import model_of
from alignment.policy.tokenizer import load_tokenizer, template_of
from alignment.prepare.applying import has_module
from alignment.prepare.engine import build_steps
from alignment.run.tracking import has_key
from alignment.train.policy_gradient.engines import require_fixed_shapes, require_samplable
from alignment.train.policy_gradient.update_shape import UpdateShape

CHECKPOINTS = 2  # that training keeps, unless the recipe sets save_total_limit


def examine(
    recipe: Recipe,
    machine: Machine,
    planned: Mapping[str, Recipe] | None = None,
    made: Collection[str] = (),
    *,
    sample: int = SAMPLE,
    try_scorers: TryScorers | None = None,
) -> Iterator[Finding]:
    """Check all that a stage needs.

    Args:
        planned: recipes of earlier stages by output_dir. made: all files and folders that earlier stages write.
        sample: number of rows of the data to check.
        try_scorers: tries the functions that score answers; None: they are not tried.
    """
    known = dict(planned or {})
    yield from _combinations(recipe, machine)
    yield from _hub(recipe)
    yield from _tracker(recipe)
    path = getattr(recipe, "model_name_or_path", "")
    plan: StagePlan | None = None
    root = _root(path, known)
    if path and _comes(root, made):
        yield note("model", f"{root} is written by an earlier stage; check again after it has run")
    else:
        try:
            plan = plan_stage(recipe, machine, known)
        except AlignmentError as error:
            if path:
                yield fault("model", str(error), "correct the recipe's model or its adapter's keys")
    if plan is not None:
        yield ok("model", f"{plan.parameters / 1e6:.1f} million weights, {plan.trainable / 1e6:.2f} million trained")
        if recipe.STAGE.trains and path not in known:
            yield from _adapter(recipe)
        yield from _memory(plan)
        yield from _batches(recipe, plan)
    yield from _disk(recipe, plan)
    if _comes(path, made) or any(_comes(entry.path, made) for entry in getattr(recipe, "datasets", [])):
        yield note("data", "template and lengths can be checked after the earlier stages have run")
        yield from scorers(recipe, None, try_scorers)
    elif path and plan is not None:
        yield from _text(recipe, sample, try_scorers)
    elif not path and hasattr(recipe, "datasets"):
        yield from readable(recipe)
    if isinstance(recipe, PrepareRecipe):
        yield from _steps(recipe)


def _combinations(recipe: Recipe, machine: Machine) -> Iterator[Finding]:
    """Yield impossible combinations under this strategy; `alignment check` reports the others."""
    for one in broken_under(recipe.stage, values_of(recipe), machine.strategy, gpu=machine.gpu):
        yield fault("combination", f"{one.what.replace('`', '')}: {one.reason}", one.remedy)


def _adapter(recipe: Any) -> Iterator[Finding]:
    """Check that the model, which may be an adapter, can be trained as the recipe has it, and sampled from."""
    try:
        source = model_of(recipe)
        if recipe.STAGE.is_online:
            require_policy(source, recipe)
            require_samplable(recipe)
            require_fixed_shapes(recipe)
        else:
            require_method(source, recipe, True, recipe, task=task_of(recipe))
    except AlignmentError as error:
        yield fault("adapter", str(error), "correct the adapter's keys, or name another model")


def _root(path: str, known: Mapping[str, Recipe]) -> str:
    """Return the model from which a chain of stages starts."""
    while path in known:
        below: str = getattr(known[path], "model_name_or_path", "")
        if not below:
            break
        path = below
    return path


def _comes(path: str, made: Collection[str]) -> bool:
    """Whether a path does not exist and an earlier stage makes it."""
    place = os.path.normpath(path)
    before = any(place == output or place.startswith(output + os.sep) for output in map(os.path.normpath, made))
    return before and not Path(path).exists()


def _hub(recipe: Recipe) -> Iterator[Finding]:
    """Check the Hub, only if the recipe names something that is not local."""
    named = [getattr(recipe, "model_name_or_path", ""), *(entry.path for entry in getattr(recipe, "datasets", []))]
    missing = [name for name in named if name and local(name) is None and may_be_on_hub(name)]
    if not missing:
        return
    if is_offline():
        yield note("Hub", f"HF_HUB_OFFLINE is set; {', '.join(missing)} must be in the cache already")
    elif reach():
        yield ok("Hub", f"{endpoint()} responds, for {', '.join(missing)}")
    else:
        remedy = "fix the connection, set HF_ENDPOINT to a mirror, or name local folders"
        yield fault("Hub", f"{', '.join(missing)} must come from {endpoint()}, which does not respond", remedy)


def _tracker(recipe: Recipe) -> Iterator[Finding]:
    wanted = recipe.report_to if isinstance(recipe.report_to, list) else [recipe.report_to]
    if not {"wandb", "all"} & set(wanted):
        return
    mode = os.environ.get("WANDB_MODE", "online")
    if mode in ("offline", "disabled", "dryrun"):
        yield ok("W&B", f"WANDB_MODE is {mode}")
        return
    if has_key():
        yield ok("W&B", "an API key is set")
    else:
        yield warning("W&B", "report_to is wandb, but no API key is set", "run `wandb login`, or WANDB_MODE=offline")


def _memory(plan: StagePlan) -> Iterator[Finding]:
    if not plan.machine.gpu:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        held = plan.peak.total * plan.machine.gpus
        found = f"{held / GIB:.1f} of this machine's {memory / GIB:.1f} GiB while {plan.peak.name}"
        if held > memory:
            yield fault("memory", found, "`alignment plan` suggests changes")
        else:
            yield ok("memory", found)
    elif plan.spare < 0:
        yield fault("memory", verdict(plan), "`alignment plan` suggests changes")
    else:
        yield ok("memory", verdict(plan))


def _batches(recipe: Any, plan: StagePlan) -> Iterator[Finding]:
    if not recipe.STAGE.is_online:
        return
    try:
        UpdateShape.of(recipe, per_device_train_batch_size=plan.microbatch, world_size=plan.machine.gpus)
    except AlignmentError as error:
        yield fault("batches", str(error), "change one of these keys")
    else:
        yield ok("batches", f"{recipe.rollout_batch_size} answers in microbatches of {plan.microbatch}")


def _steps(recipe: PrepareRecipe) -> Iterator[Finding]:
    """Build the steps: each one loads its package and its files."""
    try:
        steps = build_steps(recipe.model_copy(update={"steps": [step for step in recipe.steps if has_module(step)]}))
    except AlignmentError as error:
        yield fault("steps", str(error), "install what is missing, or correct the step's keys")
    else:
        yield ok("steps", ", ".join(one.entry.label for one in steps))


def _disk(recipe: Recipe, plan: StagePlan | None) -> Iterator[Finding]:
    folder = Path(recipe.output_dir)
    standing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK | os.X_OK):
        yield fault("output_dir", f"{standing} cannot be written to", "choose another output_dir, or its permissions")
        return
    if plan is None or not plan.trainable:
        return
    states = plan.phases[-1].parts
    one = sum(size for name, size in states.items() if "trained" in name or name == "optimizer states")
    one += {**plan.host, **plan.disk}.get("optimizer states", 0)
    kept = recipe.library.get("save_total_limit") or CHECKPOINTS
    needed = one * plan.machine.shards.optimizer * (int(kept) + 1)  # and one while it is written
    free = shutil.disk_usage(standing).free
    found = f"{needed / GIB:.2f} GiB for {kept} checkpoints and one being written, {free / GIB:.1f} free"
    if needed > free:
        yield fault("disk", found, "free disk space, lower save_total_limit, or set save_only_model")
    else:
        yield ok("disk", found)


def _text(recipe: Any, sample: int, try_scorers: TryScorers | None) -> Iterator[Finding]:
    try:
        tokenizer = load_tokenizer(recipe)
        template = template_of(recipe, tokenizer)
    except AlignmentError as error:
        yield fault(
            "tokenizer", str(error), "put the tokenizer into the model's folder, or correct eos_token and chat_template"
        )
        return
    if isinstance(recipe, PretrainRecipe):
        yield begins_and_ends(template)
        yield from rows(recipe, template, sample, try_scorers)
        return
    stops = [tokenizer.convert_ids_to_tokens(stop) for stop in template.stop_token_ids]
    kind = "a chat template" if template.chat_template else "plain text, no chat template"
    yield ok("template", f"{kind}; an answer ends with {' or '.join(map(repr, stops))}")
    others = [tokenizer.convert_ids_to_tokens(stop) for stop in getattr(tokenizer, "generation_stop_ids", ())]
    eos = tokenizer.convert_ids_to_tokens(template.eos_token_id)
    others = [token for token in others if token in stops and token != eos]
    if others and recipe.eos_token is None and not template.chat_template:
        yield warning(
            "eos_token",
            f"training ends answers with {eos!r}; generation_config.json also names {', '.join(map(repr, others))}",
            f"set eos_token to the token that ends the model's texts, such as eos_token: {json.dumps(others[0])}",
        )
    if tokenizer.pad_token_id in template.stop_token_ids:
        yield note(
            "padding",
            f"the pad token {tokenizer.pad_token!r} also ends answers; padding is masked by position",
        )
    yield from rows(recipe, template, sample, try_scorers)
