"""The trainer that a stage would build, on a model without weights: what training refuses then, a preview refuses."""

import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM

from alignment.config.schema import TrainingRecipe
from alignment.errors import AlignmentError
from alignment.meter import say_once
from alignment.planner import skeleton
from alignment.planner.tracing import without_data
from alignment.policy.base import require_loadable, task_of
from alignment.train.trial import trial_arguments, undisturbed

ROWS = 4  # of the data that the trainer is built with


@dataclass(frozen=True, slots=True)
class Parts:
    """What a trainer is built from."""

    model: Any
    reference: Any  # None if training loads none
    arguments: Any


def require_trainer(recipe: TrainingRecipe, build: Callable[[Parts], Any], **forced: Any) -> None:
    """Build a trainer on a model that has shapes and no data.

    Args:
        build: builds it from a few rows; raises what training raises. forced: arguments that the stage forces.

    Raises: AlignmentError, as training does.
    """
    task = task_of(recipe)
    require_loadable(recipe, trainable=True, peft=recipe, task=task)
    if recipe.trust_remote_code:
        return  # code of others runs in training alone
    plan = skeleton.blueprint(recipe.model_name_or_path, {}, revision=recipe.model_revision)
    with undisturbed():
        model = skeleton.policy(plan, recipe, gpu=False, task=task)
    copied = recipe.STAGE.reference and recipe.method.copies_reference
    reference = skeleton.bare(AutoModelForCausalLM, plan, recipe, full=False, gpu=False) if copied else None
    with tempfile.TemporaryDirectory() as folder, undisturbed(), FakeTensorMode(allow_non_fake_inputs=True):
        for each in filter(None, (model, reference)):
            without_data(each)
        arguments = trial_arguments(recipe, folder, precompute_ref_log_probs=False, **forced)
        with _unmoved(), _own_refusals():
            build(Parts(model, reference, arguments))


@contextmanager
def _unmoved() -> Iterator[None]:
    """Let modules stay where they are: PyTorch cannot move tensors without data inside of a module."""
    move = nn.Module.to
    nn.Module.to = lambda self, *_, **__: self  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.to = move  # type: ignore[method-assign]


@contextmanager
def _own_refusals() -> Iterator[None]:
    """Let refusals of the trainer pass; that an operation needs the data of a tensor is none."""
    try:
        yield
    except (AlignmentError, RuntimeError, NotImplementedError) as error:
        cause = error.__cause__ or error
        frames = traceback.extract_tb(cause.__traceback__)
        within_torch = any("/torch/" in frame.filename for frame in frames[-1:])
        if within_torch or not isinstance(error, AlignmentError):
            say_once(f"the trainer was not tried, as it reads the model's weights: {str(cause)[:200]}")
            return
        raise
