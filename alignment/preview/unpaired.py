"""The labelled answers that KTO trains, read and tokenised by the functions that training calls."""

from functools import partial
from typing import Any

from alignment.config.schema import KTORecipe
from alignment.data.answer_labels import require_both_labels
from alignment.data.rows import Unpaired
from alignment.data.splits import Split
from alignment.data.template import Template
from alignment.policy.inference import sequence_limit
from alignment.preview.origins import parts_of_prompt
from alignment.preview.rows import Part, Row, Stage, Tokens
from alignment.preview.stages import Answered, Written, lengths_of, trained_stage
from alignment.preview.trainers import ROWS, Parts, require_trainer
from alignment.train import kto, sft, unpaired_rows
from alignment.train.token_rows import TokenRows


def labelled_answers(recipe: KTORecipe, written: Written) -> Stage:
    """Read and tokenise what `alignment kto` trains, and try its trainer.

    Raises: AlignmentError as training does.
    """
    limit = sequence_limit(written.model, recipe.max_length)
    data, train, held_out = unpaired_rows.tokenised_split(recipe, written.template, limit)
    require_both_labels([row["probability"] for row in train.rows])
    best_by = recipe.library.get("metric_for_best_model")
    unpaired_rows.require_evaluable(held_out.rows, loss_type=recipe.loss_type, best_by=best_by)

    def build(parts: Parts) -> None:
        first, others = _both_labels(train.rows), held_out.rows[:ROWS]
        kto.kto_trainer(
            parts.model, written.tokenizer, parts.arguments, reference=parts.reference, train=first, evaluation=others
        )

    require_trainer(recipe, build, max_length=None)
    return unpaired_stage(data, train, held_out, written.template, limit)


def _both_labels(rows: TokenRows) -> TokenRows:
    """Return the first rows with the worst and the best."""
    places = sorted(range(len(rows)), key=lambda place: float(rows[place]["probability"]))
    return TokenRows([*rows[:ROWS], rows[places[0]], rows[places[-1]]])


def unpaired_stage(
    data: Split[Unpaired], train: sft.Tokenised, held_out: sft.Tokenised, template: Template, limit: int
) -> Stage:
    """Return the answers of `alignment.train.unpaired_rows.tokenised_split`."""

    def answered(row: dict[str, Any]) -> Answered:
        return row["prompt_ids"], row["completion_ids"]

    def build(place: int) -> Row:
        row, source = train.rows[place], data.train[train.places[place]]
        parts = parts_of_prompt(source.prompt)
        text = str(template.tokenizer.decode(list(row["completion_ids"])))
        fitting = [response for response in source.responses if response.strip() and response.strip() in text]
        parts.append(Part("completion", max(fitting, key=len, default="")))
        return Row(source.source, {"segments": Tokens.answered(*answered(row))}, parts, row["probability"])

    sources = [data.train[place].source for place in train.places]
    lengths = partial(lengths_of, lambda: map(answered, train.rows))
    return trained_stage("kto", data, (train, held_out), sources, build, lengths, limit=limit, unit="answers")
