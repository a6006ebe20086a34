"""The rows that fine-tuning and DPO train, read and tokenised by the functions that training calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from transformers import AutoConfig

from alignment.config.schema import DPORecipe, ModelKeys, SFTRecipe
from alignment.data.answer_tokens import AnswerTokens
from alignment.data.masks import IGNORE, TrainedRow
from alignment.data.rows import Demonstration, Ranking
from alignment.data.splits import Split
from alignment.data.template import Template
from alignment.policy.base import load_tokenizer, resolve_model
from alignment.preview.origins import parts_of, parts_of_prompt
from alignment.preview.rows import Lengths, Part, Row, Stage, Tokens
from alignment.train import dpo, sft

SIDES = ("chosen", "rejected")
LOSS = "sigmoid"  # of DPOConfig, where the recipe names none


@dataclass(frozen=True, slots=True)
class Written:
    """A recipe's tokenizer and template, and its model's configuration; no weights."""

    tokenizer: Any
    template: Template
    model: Any  # has `config`

    @classmethod
    def of(cls, recipe: Any) -> "Written":
        """Load them.

        Raises: ModelError.
        """
        tokenizer = load_tokenizer(recipe)
        template = Template(tokenizer, recipe.chat_template, recipe.eos_token)
        return cls(tokenizer, template, SimpleNamespace(config=config_of(recipe)))


def config_of(keys: ModelKeys) -> Any:
    """Read the configuration of the model, or of an adapter's base; `load_tokenizer` has read it before."""
    source = resolve_model(keys.model_name_or_path, revision=keys.model_revision)
    options = {"trust_remote_code": keys.trust_remote_code, "revision": keys.model_revision}
    return AutoConfig.from_pretrained(source.base, **options)


def counted(train: Mapping[str, int], held_out: Mapping[str, int]) -> dict[str, Any]:
    """Return the counts that a training stage records."""
    return {"train": dict(train), "evaluation": dict(held_out)}


def demonstrations(recipe: SFTRecipe, written: Written) -> Stage:
    """Read and tokenise what `alignment sft` trains.

    Raises: DataError as training does.
    """
    template = written.template
    limit = sft.context_limit(recipe.max_length, written.model)
    data, train, held_out = sft.tokenised_split(recipe, template, limit)
    sft.require_learnable(train.rows, template.stop_token_ids, train.skipped)
    return demonstration_stage(data, train, held_out, template, limit)


def demonstration_stage(
    data: Split[Demonstration], train: sft.Tokenised, held_out: sft.Tokenised, template: Template, limit: int
) -> Stage:
    """Return the rows of `alignment.train.sft.tokenised_split`."""
    stage = Stage(
        "sft",
        [data.train[place].source for place in train.places],
        lambda place: build(place),
        lambda: Lengths(
            [len(row["input_ids"]) for row in train.rows],
            [sum(label != IGNORE for label in row["labels"]) for row in train.rows],
        ),
        data.skipped + train.skipped + held_out.skipped,
        data.files,
        data.formats,
        counted(train.counts(), held_out.counts()),
        limit,
    )

    def build(place: int) -> Row:
        source, row = data.train[train.places[place]], train.rows[place]
        whole = _uncut(
            AnswerTokens(template).demonstrations(source), place - train.places.index(train.places[place]), limit
        )
        tokens = Tokens.labelled(row["input_ids"], row["labels"], whole.input_ids[limit:])
        text = str(template.tokenizer.decode(whole.input_ids))
        parts = [part for part in parts_of(source) if part.name == "tools" or part.text.strip() in text]
        return Row(source.source, stage.layout(source.source), {"segments": tokens}, parts)

    return stage


def _uncut(rows: Sequence[TrainedRow], number: int, limit: int) -> TrainedRow:
    """Return the `number`-th row of a conversation that has a trained token within the limit."""
    return [row for row in rows if any(label != IGNORE for label in row.labels[:limit])][number]


def pairs(recipe: DPORecipe, written: Written) -> Stage:
    """Read and tokenise what `alignment dpo` trains.

    Raises: DataError as training does.
    """
    limit = sft.context_limit(recipe.max_length, written.model)
    ties = dpo.takes_ties(recipe.library.get("loss_type", LOSS))
    data, train, held_out = dpo.tokenised_split(recipe, written.template, limit, ties=ties)
    dpo.require_pairs(train.rows)
    return pair_stage(data, train, held_out, written.template, limit)


def pair_stage(
    data: Split[Ranking], train: sft.Tokenised, held_out: sft.Tokenised, template: Template, limit: int
) -> Stage:
    """Return the pairs of `alignment.train.dpo.tokenised_split`."""
    answers = [(row["prompt_ids"], row[side]) for row in train.rows for side in ("chosen_ids", "rejected_ids")]
    stage = Stage(
        "dpo",
        [data.train[place].source for place in train.places],
        lambda place: build(place),
        lambda: lengths_of(answers),
        data.skipped + train.skipped + held_out.skipped,
        data.files,
        data.formats,
        counted(train.counts(), held_out.counts()),
        limit,
        "pairs",
    )

    def build(place: int) -> Row:
        row = train.rows[place]
        sides = [(row["prompt_ids"], row[side]) for side in ("chosen_ids", "rejected_ids")]
        ranking = data.train[train.places[place]]
        return pair_row(stage, ranking, sides, row["probability"], template.tokenizer)

    return stage


def pair_row(
    stage: Stage,
    ranking: Ranking,
    sides: Sequence[tuple[Sequence[int], Sequence[int]]],
    probability: float,
    tokenizer: Any,
) -> Row:
    """Return the row of two answers, each with its prompt's tokens, the more probable one first."""
    parts = parts_of_prompt(ranking.prompt)
    for name, (_, ids) in zip(SIDES, sides, strict=True):
        text = str(tokenizer.decode(list(ids)))
        fitting = [response for response in ranking.responses if response.strip() and response.strip() in text]
        parts.append(Part(name, max(fitting, key=len, default="")))
    tokens = {name: Tokens.answered(*side) for name, side in zip(SIDES, sides, strict=True)}
    return Row(ranking.source, stage.layout(ranking.source), tokens, parts, probability)


def lengths_of(answers: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Lengths:
    """Count the tokens of prompts with their answers."""
    return Lengths([len(prompt) + len(ids) for prompt, ids in answers], [len(ids) for _, ids in answers])
