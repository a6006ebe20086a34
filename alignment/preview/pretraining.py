"""The sequences that pretraining trains, made by the functions that training calls."""

from alignment.config.schema import PretrainRecipe
from alignment.data.masks import IGNORE
from alignment.data.rows import Demonstration
from alignment.data.splits import Split
from alignment.data.template import Template
from alignment.policy.inference import sequence_limit
from alignment.preview.origins import parts_of
from alignment.preview.rows import Lengths, Row, Stage, Tokens
from alignment.preview.stages import Written, trained_stage
from alignment.preview.trainers import ROWS, Parts, require_trainer
from alignment.train.pretraining.objective import DRAW, Objective
from alignment.train.pretraining.objectives import objective_of
from alignment.train.pretraining.rows import EpochRows, Prepared, first_rows, prepared_split, require_rows
from alignment.train.pretraining.trainer import PretrainTrainer, forced


def documents_shown(recipe: PretrainRecipe, written: Written) -> Stage:
    """Read and tokenise what `alignment pretrain` trains, and try its trainer.

    Raises: AlignmentError as training does.
    """
    limit = sequence_limit(written.model, recipe.max_length)
    objective = objective_of(recipe, written.template, limit)
    data, train, held_out = prepared_split(recipe, written.template, limit)
    require_rows(train)

    def build(parts: Parts) -> None:
        few = EpochRows(first_rows(train.rows, ROWS))
        PretrainTrainer(parts.model, parts.arguments, objective, few, Prepared(first_rows(held_out.rows, ROWS)))

    require_trainer(recipe, build, **forced(recipe))
    return pretraining_stage(data, train, held_out, written.template, objective)


def pretraining_stage(
    data: Split[Demonstration], train: Prepared, held_out: Prepared, template: Template, objective: Objective
) -> Stage:
    """Return the rows of `alignment.train.pretraining.rows.prepared_split`."""
    recipe = objective.setting.recipe

    def build(place: int) -> Row:
        source = data.train[train.places[place]]
        return Row(source.source, shown(objective, train, place), [] if recipe.streaming else parts_of(source))

    def lengths() -> Lengths:
        found = [shown(objective, train, place) for place in range(len(train.rows))]
        sequences = [[tokens for tokens in each.values()] for each in found]
        return Lengths(
            [max(len(tokens.ids) for tokens in each) for each in sequences],
            [sum(sum(tokens.trained) for tokens in each) for each in sequences],
        )

    sources = [data.train[place].source for place in train.places]
    unit = f"sequences of the stream's first {len(data.train):,} rows" if recipe.streaming else "sequences"
    limit = objective.setting.limit
    return trained_stage("pretrain", data, (train, held_out), sources, build, lengths, limit=limit, unit=unit)


def shown(objective: Objective, train: Prepared, place: int) -> dict[str, Tokens]:
    """Return the sequences of a row as its first epoch trains it: one, or the encoder's and the decoder's."""
    batch = objective.collate([{**train.rows[place], DRAW: [0, place]}])
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    if objective.setting.recipe.objective != "seq2seq":
        return {"segments": Tokens.labelled(ids, labels)}
    target = [label for label in labels if label != IGNORE]
    return {"input": Tokens(ids, [False] * len(ids)), "target": Tokens(target, [True] * len(target))}
