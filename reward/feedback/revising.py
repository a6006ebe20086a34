"""Revises answers by a constitution: each revision gives a preference pair and an answer for SFT."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from alignment.calls.budget import Budget
from alignment.calls.caller import Caller
from alignment.calls.store import CallStore
from alignment.calls.store_rows import Sampled
from alignment.config.schema import LabelRecipe
from alignment.config.schema.judges import ChatEntry
from alignment.data.rows import Pair, Ranking
from alignment.data.sampled import of_answers
from alignment.evaluate.judging import Rating
from reward.feedback.labeler import ask
from reward.feedback.strategies import key_of
from reward.judges.revision import Reviser


def reviser_for(recipe: LabelRecipe, caller: Caller) -> Reviser | None:
    """Return the reviser of the recipe's answers; None without `revisions`.

    Raises: JudgeError if the judge is not available.
    """
    if recipe.revisions is None:
        return None
    assert isinstance(recipe.judge, ChatEntry)  # by the rules of recipes
    return Reviser.from_entry(recipe.judge, recipe.revisions, caller)


def answers_to_revise(samples: list[Sampled]) -> Iterator[tuple[Sampled, int, Rating]]:
    """Yield every distinct answer of every prompt that is not blank, with its index."""
    for sample in samples:
        for place, text in enumerate(sample.responses):
            if text.strip() and text not in sample.responses[:place]:
                yield sample, place, Rating(sample.prompt, text)


def revised(
    recipe: LabelRecipe,
    samples: list[Sampled],
    reviser: Reviser,
    caller: Caller,
    provenance: dict[str, Any],
) -> tuple[list[Ranking], dict[str, int]]:
    """Revise the answers; a revision that failed or changed nothing gives no row.

    Returns: rows of a revision and its original, in which the revision is preferred without a judgement, as in section
        4.1 of https://arxiv.org/abs/2212.08073; and the number of answers by status, including "unchanged".

    Raises: JudgeError if the judge is not available or fails too often; BudgetError at the limit of the budget.
    """
    answers = list(answers_to_revise(samples))
    verdicts = ask(
        reviser,
        [rating for _, _, rating in answers],
        max_concurrency=recipe.judge.at_once(recipe.max_concurrency),
        max_failure_share=recipe.max_failure_share,
        store=caller.cache if isinstance(caller.cache, CallStore) and not caller.makes_no_calls else None,
        spent=caller.budget.summary if isinstance(caller.budget, Budget) else lambda: "",
        doing="revised",
    )
    judged_by = {"source": "judge", "judge": reviser.name, "prompt_hash": reviser.prompt_hash, "made_by": "revision"}
    rows: list[Ranking] = []
    statuses: Counter[str] = Counter()
    for sample, place, rating in answers:
        verdict = verdicts[key_of(rating)]
        statuses["unchanged" if verdict.status == "tie" else verdict.status] += 1
        if verdict.status != "ok":
            continue
        how = {key: verdict.details[key] for key in ("principles", "critiques")}
        kept = of_answers(sample.of_answers(), [None, place])
        rows.append(
            Ranking(
                prompt=sample.prompt,
                responses=[verdict.raw, rating.answer],
                pairs=[Pair(0, 1, 1.0)],
                provenance={**provenance, **judged_by, **how, **kept},
            )
        )
    return rows, dict(sorted(statuses.items()))
