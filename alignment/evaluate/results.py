"""Putting one evaluation's numbers under plain names."""

import random
from collections.abc import Sequence
from typing import Any, Protocol

from alignment.config.schema import EvaluateRecipe
from alignment.config.schema.chat_models import at_once
from alignment.data.rows import Prompt
from alignment.errors import BudgetError
from alignment.evaluate.forgetting import forgotten
from alignment.evaluate.judging import Comparison, Judge
from alignment.evaluate.metrics import kl, lengths, variety
from alignment.evaluate.policies import Measured
from alignment.evaluate.statistics import Bootstrap, mean_interval
from alignment.evaluate.winrate import Judged, agreement, comparisons, judge_pairs, win_rate
from alignment.meter import ProgressBar

Scores = dict[str, list[float]]  # reward scores of every answer, by policy
Verdicts = dict[str, dict[str, Judged]]  # by candidate, then judge


class Answered(Protocol):
    """A policy's answers, one per prompt and generation."""

    @property
    def name(self) -> str:
        """What tables call the policy."""
        ...

    @property
    def texts(self) -> list[str]:
        """The answers."""
        ...


def judge_candidates(
    recipe: EvaluateRecipe,
    judges: Sequence[Judge[Comparison]],
    prompts: Sequence[Prompt],
    baseline: Answered,
    candidates: Sequence[Answered],
) -> Verdicts:
    """Ask every judge about every candidate's answers against the baseline's; prompts: one per answer."""
    verdicts: Verdicts = {}
    for candidate in candidates:
        pairs = comparisons(prompts, candidate.texts, baseline.texts)
        for judge in judges:
            found = _ask(recipe, judge, pairs, candidate.name, baseline.name)
            verdicts.setdefault(candidate.name, {})[judge.name] = found
    return verdicts


def reward_agreement(
    recipe: EvaluateRecipe,
    judges: Sequence[Judge[Comparison]],
    prompts: Sequence[Prompt],
    clusters: Sequence[int],
    baseline: Answered,
    scores: Scores,
) -> dict[str, dict[str, Any] | None]:
    """Share of the baseline's pairs of answers that the reward model orders as each judge does.

    The pairs are answers to one prompt, the first with the second, the third with the fourth, and so on.
    """
    firsts = [
        i for i in range(len(prompts) - 1) if clusters[i] == clusters[i + 1] and i % recipe.num_generations % 2 == 0
    ]
    pairs = [comparisons([prompts[i]], [baseline.texts[i]], [baseline.texts[i + 1]])[0] for i in firsts]
    if not pairs:
        return {}
    both = [(scores[baseline.name][i], scores[baseline.name][i + 1]) for i in firsts]
    where = [clusters[i] for i in firsts]
    return {
        judge.name: agreement(_ask(recipe, judge, pairs, baseline.name, "itself"), both, where, bootstrap_of(recipe))
        for judge in judges
    }


def summarise(
    recipe: EvaluateRecipe,
    clusters: Sequence[int],
    baseline: Measured,
    candidates: Sequence[Measured],
    verdicts: Verdicts,
    scores: Scores,
    agreed: dict[str, dict[str, Any] | None],
) -> dict[str, Any]:
    """Return results.json: plain numbers by policy, win rates with their intervals, all else under `details`."""
    how = bootstrap_of(recipe)
    policies = [baseline, *candidates]
    details: dict[str, Any] = {
        "kl": {c.name: kl(c.logps, c.ref_logps, clusters, how) for c in candidates if c.ref_logps is not None},
        "answer_tokens": {p.name: lengths(p.answer_ids, p.stopped, clusters, how) for p in policies},
        "distinct_answers": {p.name: variety(p.texts) for p in policies},
        "perplexity": {p.name: p.perplexity for p in policies if p.perplexity is not None},
        "reward_score": {name: mean_interval(values, clusters, how).as_json() for name, values in scores.items()},
        "reward_agreement": {name: found for name, found in agreed.items() if found is not None},
    }
    if baseline.kept is not None:
        details["forgetting"] = {
            c.name: _forgetting(forgotten(c.kept, baseline.kept, how)) for c in candidates if c.kept
        }
    return {
        "baseline": baseline.name,
        "candidates": [c.name for c in candidates],
        "judges": list(next(iter(verdicts.values()), {})),
        "prompts": len(set(clusters)),
        "answers_per_prompt": recipe.num_generations,
        "confidence_level": recipe.confidence_level,
        "win_rate": win_rates(recipe, clusters, verdicts),
        **{name: {who: found["value"] for who, found in by.items()} for name, by in details.items() if by},
        "details": details,
    }


def _forgetting(by_data: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a candidate's forgetting; `value` is its largest perplexity ratio."""
    ratios = [found["perplexity_ratio"]["value"] for found in by_data.values() if "perplexity_ratio" in found]
    return {"value": max((ratio for ratio in ratios if ratio is not None), default=None), "data": by_data}


def win_rates(recipe: EvaluateRecipe, clusters: Sequence[int], verdicts: Verdicts) -> dict[str, dict[str, Any]]:
    """Return every candidate's win rate by every judge."""
    how = bootstrap_of(recipe)
    return {
        name: {judge: win_rate(judged, clusters, how) for judge, judged in by_judge.items()}
        for name, by_judge in verdicts.items()
    }


def verdict_columns(verdicts: Verdicts, count: int) -> list[dict[str, dict[str, float | None]]]:
    """Return, for each of `count` answers, the probability that a candidate's is better, by judge and candidate."""
    judges = list(next(iter(verdicts.values()), {}))
    return [{j: {c: by[j].verdicts[i].probability for c, by in verdicts.items()} for j in judges} for i in range(count)]


def answer_rows(
    prompts: Sequence[Prompt],
    policies: Sequence[Measured],
    verdicts: Verdicts,
    scores: Scores,
    subsets: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """One row per prompt and generation: every policy's answer, its tokens and score, and each judge's probability.

    `verdicts` holds, by judge and candidate, the probability that the candidate's answer is better than the baseline's.

    Args:
        subsets: the data set of each row, if there are several.
    """
    columns = verdict_columns(verdicts, len(prompts))
    return [
        {
            "prompt": prompt,
            **({"subset": subsets[i]} if subsets else {}),
            "answers": {p.name: p.texts[i] for p in policies},
            "tokens": {p.name: len(p.answer_ids[i]) for p in policies},
            "stopped": {p.name: p.stopped[i] for p in policies},
            "prompt_ids": {p.name: p.prompt_ids[i] for p in policies},
            "response_ids": {p.name: p.answer_ids[i] for p in policies},
            "scores": {name: values[i] for name, values in scores.items()},
            "verdicts": columns[i],
        }
        for i, prompt in enumerate(prompts)
    ]


def sampled_with(policy: Measured) -> dict[str, str]:
    """Return the hashes of the tokenizer and chat template that the ids in `answer_rows` belong to."""
    return {key: policy.tokens[0][key] for key in ("tokenizer_sha256", "template_sha256")}


def pick_examples(rows: list[dict[str, Any]], every: int, count: int, seed: int) -> list[dict[str, Any]]:
    """Return `count` rows of different prompts, chosen by the seed, not by their content; `every`: rows per prompt."""
    firsts = range(0, len(rows), every)
    chosen = random.Random(seed).sample(firsts, min(count, len(firsts)))
    return [rows[i] for i in sorted(chosen)]


def bootstrap_of(recipe: EvaluateRecipe) -> Bootstrap:
    """Return the recipe's settings of intervals."""
    return Bootstrap(recipe.confidence_level, recipe.bootstrap_samples, recipe.seed)


def _ask(
    recipe: EvaluateRecipe, judge: Judge[Comparison], pairs: Sequence[Comparison], candidate: str, baseline: str
) -> Judged:
    asked = sum(not pair.identical for pair in pairs)
    with ProgressBar(f"evaluate: {candidate} against {baseline} by {judge.name}", "pairs", asked) as progress:
        try:
            return judge_pairs(
                judge,
                pairs,
                max_concurrency=at_once(recipe.judges, recipe.max_concurrency),
                max_failure_share=recipe.max_failure_share,
                on_done=lambda: progress.advance(1),
            )
        except BudgetError as error:
            raise BudgetError(
                f"{asked} pairs are not all judged: {error} No results were written; the verdicts so far are kept, and "
                "the same command with a higher budget continues from them."
            ) from None
