"""The rows that a reward model trains, for `alignment preview`."""

from functools import partial

from alignment.config.schema import RewardRecipe
from alignment.data.rows import Ranking
from alignment.data.splits import Split
from alignment.data.template import Template
from alignment.policy.inference import context_limit
from alignment.preview.rows import Row, Stage
from alignment.preview.stages import Answered, Written, lengths_of, pair_row, trained_stage
from alignment.preview.trainers import ROWS, Parts, require_trainer
from reward.models.batches import Encoded, EncodedRanking, encoded_split
from reward.models.ties import first_log_nu
from reward.models.trainer import RewardTrainer


def rankings(recipe: RewardRecipe, written: Written) -> Stage:
    """Read and tokenise what `alignment reward` trains: a row for each usable pair of a ranking.

    Raises: DataError as training does.
    """
    limit = context_limit(written.model, recipe.max_length)
    data, train, held_out = encoded_split(recipe, written.template, limit=limit, seed=recipe.seed)

    def build(parts: Parts) -> None:
        if recipe.ties == "davidson":
            first_log_nu(train.rows)
        first, others = train.rows[:ROWS], held_out.rows[:ROWS]
        RewardTrainer(parts.model, parts.arguments, tokenizer=written.tokenizer, train=first, evaluation=others)

    require_trainer(recipe, build, remove_unused_columns=False)
    return ranking_stage(data, train, held_out, written.template, limit)


def ranking_stage(
    data: Split[Ranking], train: Encoded, held_out: Encoded, template: Template, limit: int | None
) -> Stage:
    """Return the pairs of `reward.models.batches.encoded_split`."""
    pairs = [(place, pair) for place, row in enumerate(train.rows) for pair in row.pairs]

    def answer(row: EncodedRanking, place: int) -> Answered:
        ids, tokens = row.input_ids[place], row.answer_tokens[place]
        return ids[: len(ids) - tokens], ids[len(ids) - tokens :]

    def build(number: int) -> Row:
        place, (first, second, probability, _) = pairs[number]
        row = train.rows[place]
        ends = (first, second) if probability >= 0.5 else (second, first)
        sides = [answer(row, end) for end in ends]
        return pair_row(data.train[row.place], sides, max(probability, 1 - probability), template.tokenizer)

    sources = [data.train[train.rows[place].place].source for place, _ in pairs]
    lengths = partial(
        lengths_of, lambda: (answer(row, place) for row in train.rows for place in range(len(row.input_ids)))
    )
    return trained_stage("reward", data, (train, held_out), sources, build, lengths, limit=limit, unit="pairs")
