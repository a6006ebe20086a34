"""The rows that a reward model trains, for `alignment preview`."""

from alignment.config.schema import RewardRecipe
from alignment.data.rows import Ranking
from alignment.data.splits import Split
from alignment.data.template import Template
from alignment.preview.rows import Row, Stage
from alignment.preview.stages import Written, counted, lengths_of, pair_row
from reward.batches import Encoded, encoded_split
from reward.model import context_limit


def rankings(recipe: RewardRecipe, written: Written) -> Stage:
    """Read and tokenise what `alignment reward` trains: a row for each usable pair of a ranking.

    Raises: DataError as training does.
    """
    limit = context_limit(written.model, recipe.max_length)
    data, train, held_out = encoded_split(recipe, written.template, limit=limit, seed=recipe.seed)
    return ranking_stage(data, train, held_out, written.template, limit)


def ranking_stage(
    data: Split[Ranking], train: Encoded, held_out: Encoded, template: Template, limit: int | None
) -> Stage:
    """Return the pairs of `reward.batches.encoded_split`."""
    pairs = [(place, pair) for place, row in enumerate(train.rows) for pair in row.pairs]
    answers = [
        (ids[: len(ids) - tokens], ids[len(ids) - tokens :])
        for row in train.rows
        for ids, tokens in zip(row.input_ids, row.answer_tokens, strict=True)
    ]
    stage = Stage(
        "reward",
        [data.train[train.rows[place].place].source for place, _ in pairs],
        lambda place: build(place),
        lambda: lengths_of(answers),
        data.skipped + train.skipped + held_out.skipped,
        data.files,
        data.formats,
        counted(train.counts(), held_out.counts()),
        limit,
        "pairs",
    )

    def build(number: int) -> Row:
        place, (first, second, probability, _) = pairs[number]
        row = train.rows[place]
        ends = (first, second) if probability >= 0.5 else (second, first)
        sides = []
        for end in ends:
            ids, tokens = row.input_ids[end], row.answer_tokens[end]
            sides.append((ids[: len(ids) - tokens], ids[len(ids) - tokens :]))
        ranking = data.train[row.place]
        return pair_row(stage, ranking, sides, max(probability, 1 - probability), template.tokenizer)

    return stage
