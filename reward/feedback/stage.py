"""Parts of the label stage: labels, dry run, reparse and revisions."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from alignment.calls.budget import Budget
from alignment.calls.caller import Caller, DryCaller
from alignment.calls.prices import tariff_of
from alignment.calls.session import STORE
from alignment.calls.store import CallStore
from alignment.calls.store_rows import Sampled
from alignment.config.launched import Launch
from alignment.config.schema import LabelRecipe
from alignment.data import Loaded, load_rows, ranking_to_json
from alignment.data.prompts import prompts_to_answer
from alignment.data.rows import Ranking
from alignment.data.template import Template
from alignment.errors import AlignmentError, DataError, LineageError, ModelError, named_inputs
from alignment.evaluate.judging import Judge, Question
from alignment.manifest import read_manifest
from alignment.run.directory import RunDirectory
from alignment.run.files import write_jsonl
from reward.audit.gate import accept, ask_gold, gold_samples
from reward.feedback.answers import given_answers, imagined_answers
from reward.feedback.labeler import label, summary
from reward.feedback.revising import answers_to_revise, revised, reviser_for
from reward.feedback.strategies import key_of, pairs_to_label, strategy_of
from reward.judges import build_judge
from reward.labels.files import LABELS, REVISIONS


@named_inputs(DataError, LineageError, ModelError)
def read_inputs(recipe: LabelRecipe) -> Loaded[Any]:
    """Read the data, and check all that labelling reads before the run's folder is made.

    Raises: DataError if rows or people's comparisons cannot be read, or a prompt leaves no room for an answer in the
        policy's context; ModelError or LineageError if the policy cannot answer.
    """
    from alignment.policy.base import config_of, require_loadable, task_of
    from alignment.policy.proxy import require_one_tokenizer
    from alignment.policy.tokenizer import load_tokenizer
    from alignment.rollout.context import context_of

    data = load_rows(recipe)
    gold_samples(recipe)
    if recipe.responses == "given":
        given_answers(data, None, None)
        return data
    require_loadable(recipe, trainable=False, peft=None, task=task_of(recipe))
    template = Template(load_tokenizer(recipe), recipe.chat_template, recipe.eos_token)
    if recipe.proxy is not None:
        require_one_tokenizer(recipe, recipe.proxy)
    prompts_to_answer(recipe, template, context_of(SimpleNamespace(config=config_of(recipe))), data)
    return data


def labels_of(
    recipe: LabelRecipe,
    samples: list[Sampled],
    judge: Judge[Any],
    caller: Caller,
    provenance: dict[str, Any],
    *,
    all_pairs: bool = False,
) -> list[Ranking]:
    """Label every prompt's answers; `all_pairs`: ignore the recipe's `pairs_per_prompt`."""
    return label(
        samples,
        judge,
        strategy_of(judge.mode, samples=recipe.judge.repeats, seed=recipe.seed, acceptable=recipe.acceptable_rating),
        pairs_per_prompt=None if all_pairs else recipe.pairs_per_prompt,
        seed=recipe.seed,
        max_concurrency=recipe.judge.at_once(recipe.max_concurrency),
        max_failure_share=recipe.max_failure_share,
        provenance=provenance,
        store=caller.cache if isinstance(caller.cache, CallStore) and not caller.makes_no_calls else None,
        spent=caller.budget.summary if isinstance(caller.budget, Budget) else lambda: "",
    )


def dry_run(recipe: LabelRecipe) -> str:
    """Return the calls, tokens and cost of the recipe beyond the calls in its folder, as text; writes nothing."""
    path = Path(recipe.output_dir) / STORE
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(CallStore(path)) if path.is_file() else None
        caller = DryCaller(store, tariff_of(recipe.judge))
        judge: Judge[Any] = build_judge(recipe.judge, caller)
        samples = list(store.samples().values()) if store else []
        imagined = not samples and recipe.responses == "sampled"
        if not samples:
            samples = imagined_answers(recipe) if imagined else given_answers(load_rows(recipe), None, None)
        strategy = strategy_of(judge.mode, samples=recipe.judge.repeats, seed=recipe.seed)
        questions: dict[tuple[str, int], Question] = {}
        for sample in samples:
            pairs = pairs_to_label(sample, pairs_per_prompt=recipe.pairs_per_prompt, seed=recipe.seed)
            questions |= {key_of(question): question for question in strategy.questions(sample, pairs)}
        for sample in gold_samples(recipe):
            pairs = pairs_to_label(sample, pairs_per_prompt=None, seed=recipe.seed)
            questions |= {key_of(question): question for question in strategy.questions(sample, pairs)}
        for question in questions.values():
            judge.ask(question)
        reviser = reviser_for(recipe, caller)
        to_revise = {key_of(rating): rating for _, _, rating in answers_to_revise(samples)} if reviser else {}
        for rating in to_revise.values():
            assert reviser is not None
            reviser.ask(rating)
    cost = "no prices are given (judge.prices), so no cost"
    if caller.prices:
        cost = f"at most {caller.cost:.4f} {caller.prices.currency}"
    lines = [
        f"{len(samples)} prompts, {len(questions)} questions to {judge.name}"
        + (f", {len(to_revise)} answers to revise" if to_revise else ""),
        f"{caller.calls} calls, about {caller.prompt_tokens} tokens of prompts and at most "
        f"{caller.completion_tokens} of replies: {cost}",
    ]
    minutes = caller.calls / recipe.requests_per_minute if recipe.requests_per_minute else 0.0
    if recipe.tokens_per_minute:
        minutes = max(minutes, (caller.prompt_tokens + caller.completion_tokens) / recipe.tokens_per_minute)
    if minutes:
        lines.append(f"at least {minutes:.1f} minutes by requests_per_minute and tokens_per_minute")
    if imagined:
        lines.append(f"The answers are not sampled yet; each is assumed to have {recipe.max_new_tokens} tokens.")
    return "\n".join(lines)


def reparse(recipe: LabelRecipe) -> dict[str, Any]:
    """Write a finished run's labels again from its calls, with the recipe's present judge; makes no call.

    Raises: AlignmentError if there is no finished run, or the recipe needs calls that were never made.
    """
    path = Path(recipe.output_dir)
    manifest = read_manifest(path)
    if manifest.get("stage") != "label" or manifest.get("status") != "finished":
        raise AlignmentError(
            f"{path}: holds no finished run of stage label; --reparse reads the calls of a finished run."
        )
    with CallStore(path / STORE, rejected=True) as store:
        caller = DryCaller(store, tariff_of(recipe.judge))
        judge = build_judge(recipe.judge, caller)
        kept = manifest.get("results", {})
        samples = list(store.samples().values())
        forgiving = recipe.model_copy(update={"max_failure_share": 1.0})
        run = RunDirectory(path, recipe, Launch.of(recipe), True)

        def require_made() -> None:
            if not (missing := store.never_made(caller.lacking)):
                return
            raise AlignmentError(
                f"{path}: the recipe needs {missing} calls that were never made (another judge, "
                "prompt or mode); run it without --reparse to make them. The labels are unchanged."
            )

        def known(samples: list[Sampled], provenance: dict[str, Any], *, all_pairs: bool = False) -> list[Ranking]:
            rankings = labels_of(forgiving, samples, judge, caller, provenance, all_pairs=all_pairs)
            require_made()
            return rankings

        provenance = manifest.get("provenance", {})
        rankings = known(samples, provenance)
        reviser = reviser_for(recipe, caller)
        revisions = revised(forgiving, samples, reviser, caller, provenance) if reviser else None
        require_made()
        on_gold = ask_gold(recipe, run, lambda people: known(people, {}, all_pairs=True))
    rankings = accept(recipe, run, rankings, on_gold)
    write_jsonl(path / LABELS, [ranking_to_json(ranking) for ranking in rankings])
    results = {**kept, **summary(rankings), **write_revisions(path, revisions)}
    run.record(results=results, reparsed={"judge": recipe.judge.model_dump(mode="json")})
    return results


def write_revisions(path: Path, revisions: tuple[list[Ranking], dict[str, int]] | None) -> dict[str, Any]:
    """Write the revisions; return their results for the manifest."""
    if revisions is None:
        return {}
    rows, statuses = revisions
    write_jsonl(path / REVISIONS, [ranking_to_json(row) for row in rows])
    return {"revisions": statuses}
