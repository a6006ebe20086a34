"""Answering the tasks of a recipe with one policy."""

import functools
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig

from alignment.config.schema import EvaluateRecipe, ModelKeys, ProxyEntry
from alignment.data.template import Template
from alignment.errors import DataError, ModelError, named_inputs
from alignment.evaluate.tasks.answered import REQUESTS, Answered
from alignment.evaluate.tasks.loading import LoadedTask
from alignment.meter import say_once
from alignment.policy.model_source import resolve_model
from alignment.policy.proxy import proxy_identity
from alignment.policy.weights import weights_hash
from alignment.rollout.context import context_of

Sample = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TaskAnswers:
    """What one policy makes of one entry."""

    samples: dict[str, list[Sample]]  # lm-eval's records of the documents, by task
    values: dict[str, dict[str, Any]]  # lm-eval's own scores of tasks and groups
    higher_is_better: dict[str, dict[str, bool]]
    cut: int  # requests whose first tokens did not fit the context
    requests: int


@dataclass
class TaskRuns:
    """The tasks of a recipe, and the answers of each policy that has run them."""

    recipe: EvaluateRecipe
    loaded: Sequence[LoadedTask]
    folder: Path  # of the run
    answers: dict[str, dict[str, TaskAnswers]] = field(default_factory=dict)  # by policy, then entry

    def run(
        self, name: str, path: str, model: Any, tokenizer: Any, template: Template, proxy: ProxyEntry | None
    ) -> None:
        """Answer all tasks with a policy that is in memory.

        Args:
            path: what the policy was loaded from. proxy: the pair that changes its logits.

        Raises: DataError if an answer does not fit the context. ModelError if prompts need a chat template and the
            policy has none.
        """
        self.answers[name] = {}
        if not self.loaded:
            return
        from alignment.evaluate.tasks.policy_lm import PolicyLM  # needs lm-eval, an extra

        keys = self.recipe.model_copy(update={"model_name_or_path": path})
        answered = Answered(self.folder / REQUESTS, _identity(keys, proxy, template))
        for loaded in self.loaded:
            entry = loaded.entry
            if entry.apply_chat_template and not template.chat_template:
                raise ModelError(f"{path} has no chat template, which task {entry.label} applies; give chat_template.")
            lm = PolicyLM(
                model,
                tokenizer,
                template,
                what=f"evaluate: {name} on {entry.label}",
                batch_size=self.recipe.per_device_eval_batch_size,
                chat=entry.apply_chat_template,
                seed=self.recipe.seed,
                answered=answered,
            )
            self.answers[name][entry.label] = _evaluated(lm, loaded, self.recipe.seed)
            if lm.cut:
                say_once(
                    f"{name}: {lm.cut} of {lm.requests} prompts of {entry.label} are longer than the context, and lose "
                    "their first tokens"
                )


@named_inputs(DataError)
def require_room(recipe: EvaluateRecipe, loaded: Sequence[LoadedTask]) -> None:
    """Check, before a model is loaded, that the answers of tasks leave room for prompts in each policy's context.

    Raises: DataError if they do not.
    """
    longest = max((one.longest_answer for one in loaded), default=0)
    for path in [recipe.model_name_or_path, *(one.model_name_or_path for one in recipe.candidates)] if longest else []:
        source = resolve_model(path, revision=recipe.model_revision)
        config = AutoConfig.from_pretrained(source.base, trust_remote_code=recipe.trust_remote_code)
        context = context_of(SimpleNamespace(config=config))
        for one in loaded:
            if context is not None and one.longest_answer >= context:
                raise DataError(f"task {one.entry.label}, {path}: {too_long(one.longest_answer, context)}")


def too_long(answer: int, context: int) -> str:
    """Return the message for answers that leave no room for a prompt."""
    return (
        f"answers of {answer} tokens leave no room for a prompt in the context of {context}; give the task's entry "
        f"gen_kwargs: {{max_gen_toks: …}} below {context}."
    )


def _identity(keys: ModelKeys, proxy: ProxyEntry | None, template: Template) -> list[str]:
    source = resolve_model(keys.model_name_or_path, revision=keys.model_revision)
    hashes = [weights_hash(place) for place in (source.base, source.adapter) if place]
    return [*hashes, str(proxy and proxy_identity(keys, proxy)), template.hash, str(keys.dtype), str(keys.bits)]


def _evaluated(lm: Any, loaded: LoadedTask, seed: int) -> TaskAnswers:
    from lm_eval.evaluator import evaluate

    entry = loaded.entry
    for task in loaded.tasks.values():
        task.set_fewshot_seed(seed=seed)  # the same examples for every policy
    with _seeded(seed):
        found = evaluate(
            lm,
            {"tasks": loaded.tasks, "groups": loaded.groups},
            limit=entry.limit,
            bootstrap_iters=0,
            log_samples=True,
            system_instruction=entry.system_instruction,
            apply_chat_template=entry.apply_chat_template,
            fewshot_as_multiturn=entry.apply_chat_template,
        )
    return TaskAnswers(found["samples"], found["results"], found["higher_is_better"], lm.cut, lm.requests)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global random states, which tasks use, and restore them; keep lm-eval's own bars off."""
    import lm_eval.api.task as of_tasks

    states, bar = (random.getstate(), np.random.get_state(), torch.get_rng_state()), of_tasks.tqdm
    of_tasks.tqdm = functools.partial(bar, disable=True)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        of_tasks.tqdm = bar
