"""Labelling: a policy answers every prompt K times, a judge compares the answers, rankings come out.

alignment label --config recipes/tiny/label.yaml [--key value …]
"""

import functools
import sys
from typing import Any

from alignment.config import load_recipe
from alignment.config.schema import LabelRecipe
from alignment.data import ranking_to_json
from alignment.data.prompts import prompts_to_answer
from alignment.data.template import Template
from alignment.policy.base import load_causal_lm, load_tokenizer, resolve_model
from alignment.policy.weights import weights_hash
from alignment.rollout.engine import Sampling
from alignment.rollout.transformers_engine import TransformersEngine
from alignment.run.directory import RunDirectory
from alignment.run.files import write_jsonl
from alignment.run.lineage import fingerprint
from alignment.run.script import script
from reward.audit.gate import accept, ask_gold
from reward.feedback.labeler import label, summary
from reward.feedback.sampling import require_one_process, sample_answers
from reward.feedback.store import CallStore, Sampled
from reward.judges import build_judge


def answers(recipe: LabelRecipe, run: RunDirectory, store: CallStore) -> tuple[list[Sampled], dict[str, Any]]:
    """Sample `num_generations` answers to every prompt; return them and who gave them."""
    tokenizer = load_tokenizer(recipe)
    template = Template(tokenizer, recipe.chat_template, recipe.eos_token)
    source = resolve_model(recipe.model_name_or_path, revision=recipe.model_revision)
    stops = template.stop_token_ids
    lineage = fingerprint(source.base, tokenizer, template_hash=template.hash, stop_token_ids=stops)
    policy = {"path": recipe.model_name_or_path, "sha256": weights_hash(source.newest)}
    run.record(lineage=lineage, policy=policy)
    store.bind(policy={**lineage, **policy, "base": "", "path": ""})  # the same weights elsewhere are the same policy

    model = load_causal_lm(recipe, trainable=False)
    loaded = prompts_to_answer(recipe, template, getattr(model.config, "max_position_embeddings", None))
    run.record(data=loaded.files, skipped=loaded.skipped)
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
    return samples, {"policy": policy, "sampling": settings}


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    recipe = load_recipe("label", sys.argv[1:] if argv is None else argv)
    require_one_process()
    judge = build_judge(recipe.judge)  # before anything is written: a judge that cannot be had needs no folder
    run = RunDirectory.open(recipe)
    who = {"judge": judge.name, "prompt_hash": judge.prompt_hash}
    run.record(judge=who)
    with CallStore(run.path / "calls.sqlite") as store:
        settings = {key: getattr(recipe, key) for key in ("seed", "max_concurrency", "max_failure_share")}
        ask = functools.partial(label, judge=judge, store=store, pairs_per_prompt=None, provenance={}, **settings)
        on_gold = ask_gold(recipe, run, ask)
        samples, provenance = answers(recipe, run, store)
        rankings = label(
            samples, judge, store, pairs_per_prompt=recipe.pairs_per_prompt, provenance=provenance, **settings
        )
        run.record(judge={**who, "models": store.models(**who)})
    rankings = accept(recipe, run, rankings, on_gold)
    write_jsonl(run.path / "labels.jsonl", [ranking_to_json(ranking) for ranking in rankings])
    run.finish(**summary(rankings))


if __name__ == "__main__":
    script(main)
