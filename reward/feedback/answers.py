"""The answers that a judge compares: sampled from a policy, or read from the data."""

import hashlib
import json
from typing import Any

from alignment.calls.store import CallStore
from alignment.calls.store_rows import Sampled
from alignment.config.schema import LabelRecipe
from alignment.data import Loaded
from alignment.data.prompts import prompts_to_answer
from alignment.data.rows import Prompt, Ranking
from alignment.data.template import Template
from alignment.errors import DataError
from alignment.run.directory import RunDirectory
from reward.feedback.sampling import sample_answers

CHARACTERS_PER_TOKEN = 4  # in English, for answers that are not sampled yet


def given_answers(loaded: Loaded[Ranking], run: RunDirectory | None, store: CallStore | None) -> list[Sampled]:
    """Return the answers in the data; the order in which the data ranks them is not used.

    Args:
        run, store: record the data and the answers there, unless None.

    Raises: DataError if there are no answers; LineageError if the store has those of other data.
    """
    samples = [Sampled.of(place, row) for place, row in enumerate(loaded.rows)]
    if not samples:
        why = "every row was skipped" if loaded.skipped else "the data has no rows"
        raise DataError(f"there are no answers to judge: {why}.")
    if run is not None and store is not None:
        run.record(data=loaded.files, skipped=loaded.skipped)
        texts = json.dumps([[s.prompt, s.responses, *([s.tokens] if s.tokens else [])] for s in samples])
        store.bind(answers=hashlib.sha256(texts.encode()).hexdigest())
        if not store.samples():
            store.add_samples(samples)
    return samples


def sampled_answers(
    recipe: LabelRecipe, data: Loaded[Prompt], run: RunDirectory, store: CallStore
) -> tuple[list[Sampled], dict[str, Any]]:
    """Sample `num_generations` answers to every prompt; return them and their provenance."""
    from alignment.policy.base import load_policy
    from alignment.policy.model_source import resolve_model
    from alignment.policy.proxy import proxy_identity, proxy_tuned, require_one_tokenizer
    from alignment.policy.tokenizer import load_tokenizer
    from alignment.policy.weights import weights_hash
    from alignment.preview.recorded import recorded
    from alignment.preview.stages import prompt_stage
    from alignment.rollout.context import context_of
    from alignment.rollout.engine import Sampling
    from alignment.rollout.transformers_engine import TransformersEngine
    from alignment.run.lineage import fingerprint

    tokenizer = load_tokenizer(recipe)
    template = Template(tokenizer, recipe.chat_template, recipe.eos_token)
    source = resolve_model(recipe.model_name_or_path, revision=recipe.model_revision)
    stops = template.stop_token_ids
    lineage = fingerprint(source.base, tokenizer, template_hash=template.hash, stop_token_ids=stops)
    policy: dict[str, Any] = {"path": recipe.model_name_or_path, "sha256": weights_hash(source.newest)}
    if recipe.proxy is not None:
        require_one_tokenizer(recipe, recipe.proxy)
        policy["proxy"] = proxy_identity(recipe, recipe.proxy)
    run.record(lineage=lineage, policy=policy)
    store.bind(policy={**lineage, **policy, "base": "", "path": ""})  # the same weights elsewhere are the same policy

    model = load_policy(recipe, trainable=False)
    if recipe.proxy is not None:
        model = proxy_tuned(model, recipe, recipe.proxy)
    loaded = prompts_to_answer(recipe, template, context_of(model), data)
    kept = recorded(prompt_stage("label", loaded, loaded.rows, template), template)
    run.record(data=loaded.files, skipped=loaded.skipped, preview=kept)
    keys = ("max_new_tokens", "temperature", "top_p", "top_k", "seed")
    settings = {key: getattr(recipe, key) for key in keys}
    samples = sample_answers(
        loaded.rows,
        engine=TransformersEngine(model, tokenizer.pad_token_id, recipe.per_device_eval_batch_size),
        template=template,
        store=store,
        sampling=Sampling(**settings, stop_token_ids=stops),
        num_generations=recipe.num_generations,
        batch_size=recipe.per_device_eval_batch_size,
    )
    of_round = {} if recipe.round is None else {"round": recipe.round}
    return samples, {"policy": policy, "sampling": settings, **of_round}


def imagined_answers(recipe: LabelRecipe) -> list[Sampled]:
    """Return answers of the maximum length, to compute the maximum cost of judging them."""
    from alignment.policy.tokenizer import load_tokenizer

    template = Template(load_tokenizer(recipe), recipe.chat_template, recipe.eos_token)
    prompts = prompts_to_answer(recipe, template, None).rows
    length = recipe.max_new_tokens * CHARACTERS_PER_TOKEN
    answers = [f"{number} ".ljust(length, "x") for number in range(recipe.num_generations)]
    stopped = [True] * len(answers)
    return [Sampled(position, prompt, answers, stopped) for position, prompt in enumerate(prompts)]
