"""From rankings to the pairs of token ids that DPO trains on."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from alignment.config.schema import DPORecipe
from alignment.data.answer_tokens import AnswerTokens
from alignment.data.load import load_rankings
from alignment.data.rows import USABLE, Ranking
from alignment.data.splits import Split, load_split
from alignment.data.template import Template
from alignment.errors import DataError
from alignment.train.sft import Tokenised
from alignment.train.token_rows import in_parts


def tokenise_pairs(
    rankings: Sequence[Ranking],
    template: Template,
    *,
    limit: int,
    on_bad_row: str = "stop",
    ties: bool = True,
    num_proc: int | None = None,
) -> Tokenised:
    """Make one row of each usable pair, the more probable answer being `chosen`.

    Two answers of the same tokens, or of one text but for white space around it, teach nothing and are left out. An
    answer is never cut: half of it was not judged.

    Args:
        limit: tokens of prompt and answer.
        on_bad_row: "stop" raises at the first answer that does not fit, "skip" leaves out its pairs.
        ties: keep pairs of probability one half, which only a loss on probabilities can use.
        num_proc: processes that tokenise many rows.

    Raises: DataError naming the row, or where no pair is left.
    """
    work = partial(_tokenised, limit=limit, on_bad_row=on_bad_row, ties=ties)
    result = in_parts(work, rankings, template, num_proc)
    result.tell(len(rankings), limit)
    return result


def _tokenised(
    rankings: Sequence[Ranking], tokens: AnswerTokens, *, limit: int, on_bad_row: str, ties: bool
) -> Tokenised:
    result = Tokenised(given=len(rankings))
    for place, ranking in enumerate(rankings):
        pairs = [
            (pair.first, pair.second, pair.probability)
            for pair in ranking.pairs
            if pair.status in USABLE and pair.probability is not None and (ties or pair.probability != 0.5)
        ]
        prompt_ids: list[int] = []
        answers: dict[int, list[int]] = {}
        with result.row(ranking.source, on_bad_row):
            prompt_ids = tokens.prompt_ids(ranking)
        before = len(result.skipped)
        for index in sorted({index for first, second, _ in pairs if prompt_ids for index in (first, second)}):
            with result.row(f"{ranking.source} answer {index + 1} of {len(ranking.responses)}", on_bad_row):
                answers[index] = answer_within(tokens, ranking, index, limit - len(prompt_ids))
        del result.skipped[before + 1 :]  # a row counts once, however many of its answers do not fit
        for first, second, probability in pairs:
            if first not in answers or second not in answers:
                continue
            if answers[first] == answers[second] or ranking.same_answer(first, second):
                result.same += 1
                continue
            chosen, rejected = (first, second) if probability >= 0.5 else (second, first)
            result.rows.append(
                {
                    "prompt_ids": prompt_ids,
                    "chosen_ids": answers[chosen],
                    "rejected_ids": answers[rejected],
                    "probability": max(probability, 1.0 - probability),
                }
            )
        result.came_from(place)
    return result


def tokenised_split(
    recipe: DPORecipe, template: Template, limit: int, *, ties: bool
) -> tuple[Split[Ranking], Tokenised, Tokenised]:
    """Read and tokenise a recipe's pairs: what was read, the training pairs, the held-out pairs; `ties` as above.

    Raises: DataError.
    """
    data, processes = load_split(load_rankings, recipe, recipe.seed), recipe.library.get("dataset_num_proc")
    train, held_out = (
        tokenise_pairs(rows, template, limit=limit, on_bad_row=recipe.on_bad_row, ties=ties, num_proc=processes)
        for rows in (data.train, data.held_out)
    )
    return data, train, held_out


def require_pairs(train: Sequence[dict[str, Any]]) -> None:
    """Refuse data of which no pair is left.

    Raises: DataError.
    """
    if not train:
        raise DataError("no usable pair of different answers is left to train on; look at the rows' statuses.")


def answer_within(tokens: AnswerTokens, ranking: Ranking, index: int, room: int) -> list[int]:
    """Return the token ids of an answer.

    Raises: DataError where there are more than `room`.
    """
    ids = tokens.answer_ids(ranking, index)
    if len(ids) > room:
        raise DataError(
            f"{len(ids)} tokens where max_length and the model's context leave room for {max(room, 0)} after the "
            "prompt; raise max_length"
        )
    return ids
