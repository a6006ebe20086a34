"""Loading each policy once: its answers to the held-out prompts, its log-probabilities, its perplexity elsewhere."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from alignment.config.schema import EvaluateRecipe
from alignment.data.encoded import Sides
from alignment.data.rows import Prompt
from alignment.data.sampled import Recorder
from alignment.data.template import Template
from alignment.evaluate.forgetting import Kept, Outside, measure_outside
from alignment.evaluate.metrics import pairs_perplexity, perplexity, token_logps
from alignment.evaluate.shared_base import SharedBase
from alignment.evaluate.tasks.running import TaskRuns
from alignment.meter import ProgressBar
from alignment.policy.proxy import proxy_tuned
from alignment.policy.tokenizer import load_tokenizer, template_of
from alignment.rollout.engine import Completion, Sampling
from alignment.rollout.transformers_engine import TransformersEngine

Say = Callable[[str], None]


@dataclass
class Measured:
    """One policy's answers, one per prompt and generation, and their log-probabilities under its own weights."""

    name: str
    path: str
    texts: list[str]
    answer_ids: list[list[int]]
    stopped: list[bool]
    prompt_ids: list[list[int]]
    logps: list[Tensor]
    vocabulary: dict[str, int]
    tokens: list[dict[str, Any]] = field(default_factory=list)  # of each answer, as `alignment.data.sampled` keeps them
    perplexity: dict[str, Any] | None = None
    kept: Kept | None = None  # of what is outside the domain
    sides: Sides | None = None  # of an encoder-decoder model
    ref_logps: list[Tensor] | None = field(default=None)  # under the baseline; None if tokenizers differ


def measure(
    recipe: EvaluateRecipe,
    prompts: Sequence[Prompt],
    outside_text: str | None,
    say: Say,
    outside: Outside | None = None,
    tasks: TaskRuns | None = None,
) -> tuple[Measured, list[Measured]]:
    """Sample and measure the candidates, then the baseline.

    Adapters on one base share it, and one base is in memory at a time.

    Args:
        prompts: one per answer wanted. outside_text: for the perplexity, None for none. say: reports progress.
        outside: documents and tasks outside the domain, to compare with the baseline. tasks: of lm-eval; each policy
            answers them while it is in memory.

    Returns: the baseline and the candidates in the recipe's order.
    """
    places = [
        *((c.name, c.model_name_or_path) for c in recipe.candidates),
        (recipe.baseline_name, recipe.model_name_or_path),
    ]
    paths = [path for _, path in places]
    templates = [_template(recipe, path) for path in paths]
    shared = SharedBase(recipe, paths)
    measured: dict[int, Measured] = {}
    for place in shared.order(paths):
        name, path = places[place]
        say(f"{name}: sampling {len(prompts)} answers with {path}")
        template = templates[place]
        tokenizer = template.tokenizer
        model = shared.load(path)
        proxy = recipe.candidates[place].proxy if place < len(recipe.candidates) else None
        if proxy is not None:
            model = proxy_tuned(model, recipe.model_copy(update={"model_name_or_path": path}), proxy)
        policy = _answer(recipe, name, path, model, tokenizer, template, prompts, recipe.seed + place)
        if outside_text is not None and not template.sides:
            say(f"{name}: perplexity outside the domain")
            policy.perplexity = _perplexity(model, tokenizer, outside_text, recipe.perplexity_max_tokens)
        if outside is not None:
            say(f"{name}: losses and task scores outside the domain")
            batch = recipe.per_device_eval_batch_size
            policy.kept = measure_outside(model, template, outside, batch_size=batch, seed=recipe.seed)
            if outside.documents and template.sides:
                policy.perplexity = pairs_perplexity(policy.kept.losses.values())
        if tasks is not None:
            tasks.run(name, path, model, tokenizer, template, proxy)
        if place == len(places) - 1:
            for candidate in measured.values():
                if (candidate.vocabulary, candidate.sides) == (policy.vocabulary, policy.sides):
                    say(f"{name}: probabilities of {candidate.name}'s answers, for the KL")
                    candidate.ref_logps = _logps(model, candidate, recipe)
        measured[place] = policy
        del model
        gc.collect()
    shared.release()
    *candidates, baseline = (measured[place] for place in range(len(places)))
    return baseline, candidates


def _template(recipe: EvaluateRecipe, path: str) -> Template:
    return template_of(recipe, load_tokenizer(recipe.model_copy(update={"model_name_or_path": path})))


def _answer(
    recipe: EvaluateRecipe,
    name: str,
    path: str,
    model: Any,
    tokenizer: Any,
    template: Template,
    prompts: Sequence[Prompt],
    seed: int,
) -> Measured:
    prompt_ids = [template.prompt_ids(prompt) for prompt in prompts]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else template.stop_token_ids[0]
    sampling = Sampling(
        max_new_tokens=recipe.max_new_tokens,
        temperature=recipe.temperature,
        top_p=recipe.top_p,
        top_k=recipe.top_k,
        stop_token_ids=template.stop_token_ids,
        seed=seed,
    )
    tokens = 0

    def count(answers: list[Completion]) -> None:
        nonlocal tokens
        tokens += sum(len(answer.ids) for answer in answers)
        progress.advance(len(answers))

    engine = TransformersEngine(model, pad, recipe.per_device_eval_batch_size, on_batch=count)
    with ProgressBar(
        f"evaluate: {name} sampled",
        "answers",
        len(prompts),
        rate=lambda: f"{tokens / progress.seconds:,.0f} tokens/s",
    ) as progress:
        completions = engine.generate(prompt_ids, sampling)
    texts = [template.answer_text(before, c.words) for before, c in zip(prompt_ids, completions, strict=True)]
    ids, stopped = [c.ids for c in completions], [c.stopped for c in completions]
    records = Recorder(template).records(prompts, prompt_ids, completions)
    vocabulary = tokenizer.get_vocab()
    policy = Measured(name, path, texts, ids, stopped, prompt_ids, [], vocabulary, records, sides=template.sides)
    policy.logps = _logps(model, policy, recipe)
    return policy


def _logps(model: Any, policy: Measured, recipe: EvaluateRecipe) -> list[Tensor]:
    return token_logps(
        model,
        policy.prompt_ids,
        policy.answer_ids,
        temperature=recipe.temperature,
        batch_size=recipe.per_device_eval_batch_size,
    )


def _perplexity(model: Any, tokenizer: Any, text: str, max_tokens: int) -> dict[str, Any]:
    ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"][:max_tokens]
    bos = tokenizer("").get("input_ids", [])[:1]
    if bos != [tokenizer.bos_token_id]:
        bos = []
    return perplexity(model, ids, bos=bos)
