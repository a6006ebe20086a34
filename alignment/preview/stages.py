"""The rows that fine-tuning and DPO train, read and tokenised by the functions that training calls."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType, SimpleNamespace
from typing import Any, Protocol

from alignment.config.schema import DPORecipe, SFTRecipe
from alignment.data.answer_tokens import AnswerTokens
from alignment.data.masks import IGNORE, TrainedRow
from alignment.data.rows import Demonstration, Prompt, Ranking
from alignment.data.splits import Split
from alignment.data.template import Template
from alignment.policy.added_tokens import require_whole
from alignment.policy.base import config_of
from alignment.policy.inference import sequence_limit
from alignment.policy.tokenizer import load_tokenizer, template_of
from alignment.preview.origins import parts_of, parts_of_prompt
from alignment.preview.rows import Lengths, Part, Row, Stage, Tokens
from alignment.preview.trainers import ROWS, Parts, require_trainer
from alignment.train import dpo, preference_pairs, sft
from alignment.train.token_rows import TokenRows

SIDES = ("chosen", "rejected")
Answered = tuple[Sequence[int], Sequence[int]]  # ids of a prompt, and of an answer
Question = Callable[[Prompt], str | None]
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
        template = template_of(recipe, tokenizer)
        return cls(tokenizer, template, SimpleNamespace(config=config_of(recipe)))


class Read(Protocol):
    """What was read of data: of each prompt its "file:line", hashes and layouts of the files, and what was left out."""

    @property
    def sources(self) -> list[str]: ...  # noqa: D102
    @property
    def files(self) -> dict[str, str]: ...  # noqa: D102
    @property
    def skipped(self) -> list[str]: ...  # noqa: D102
    @property
    def formats(self) -> dict[str, str]: ...  # noqa: D102


class Made(Protocol):
    """What training makes of rows that were read."""

    skipped: list[str]

    def counts(self) -> dict[str, int]:
        """Return what the manifest records."""


def trained_stage(
    name: str,
    data: Split[Any],
    parts: tuple[Made, Made],
    sources: list[str],
    build: Callable[[int], Row],
    lengths: Callable[[], Lengths],
    *,
    limit: int | None,
    unit: str = "rows",
) -> Stage:
    """Return a training stage.

    Args:
        data: what was read. parts: what is made of its training rows and of its held-out rows.
        sources, build, lengths, limit, unit: as in `Stage`.
    """
    train, held_out = parts
    skipped = data.skipped + train.skipped + held_out.skipped
    counts = {"train": train.counts(), "evaluation": held_out.counts()}
    return Stage(name, sources, build, lengths, skipped, data.files, data.formats, counts, limit, unit)


def prompt_stage(
    name: str,
    read: Read,
    prompts: Sequence[Prompt],
    template: Template,
    question: Question = lambda _: None,
    others: Mapping[str, Template] = MappingProxyType({}),
) -> Stage:
    """Return a stage that answers prompts.

    Args:
        prompts: those of `read.sources`. question: returns what the judge is asked about a prompt.
        others: further policies that answer the same prompts, each with its template.
    """

    def build(place: int) -> Row:
        ids = template.prompt_ids(prompts[place])
        tokens = {"segments": Tokens(ids, [False] * len(ids))}
        parts = parts_of_prompt(prompts[place])
        own = template.tokenizer.decode(ids)
        texts = {name: other.tokenizer.decode(other.prompt_ids(prompts[place])) for name, other in others.items()}
        read_by = {name: str(text) for name, text in texts.items() if text != own}
        return Row(read.sources[place], tokens, parts, question=question(prompts[place]), read_by=read_by)

    def lengths() -> Lengths:
        return Lengths([len(template.prompt_ids(prompt)) for prompt in prompts], [0] * len(prompts))

    counts = {"prompts": {"to answer": len(prompts)}}
    return Stage(name, read.sources, build, lengths, read.skipped, read.files, read.formats, counts, unit="prompts")


def demonstrations(recipe: SFTRecipe, written: Written) -> Stage:
    """Read and tokenise what `alignment sft` trains.

    Raises: DataError as training does.
    """
    require_whole(recipe)
    template = written.template
    limit = sequence_limit(written.model, recipe.max_length)
    data, train, held_out = sft.tokenised_split(recipe, template, limit)
    sft.require_learnable(train.rows, template.stop_token_ids, train.skipped)

    def build(parts: Parts) -> None:
        parts.arguments.max_length = limit if parts.arguments.packing else None
        first, others = train.rows[:ROWS], held_out.rows[:ROWS]
        sft.sft_trainer(parts.model, written.tokenizer, parts.arguments, train=first, evaluation=others)

    require_trainer(recipe, build, max_length=None)
    return demonstration_stage(data, train, held_out, template, limit)


def demonstration_stage(
    data: Split[Demonstration], train: sft.Tokenised, held_out: sft.Tokenised, template: Template, limit: int
) -> Stage:
    """Return the rows of `alignment.train.sft.tokenised_split`."""

    def build(place: int) -> Row:
        source, row = data.train[train.places[place]], train.rows[place]
        if template.sides:
            return encoded_row(source, row, place - train.places.index(train.places[place]), template, limit)
        whole = _uncut(
            AnswerTokens(template).demonstrations(source), place - train.places.index(train.places[place]), limit
        )
        tokens = Tokens.labelled(row["input_ids"], row["labels"], whole.input_ids[limit:])
        text = str(template.tokenizer.decode(whole.input_ids))
        parts = [part for part in parts_of(source) if part.name == "tools" or part.text.strip() in text]
        return Row(source.source, {"segments": tokens}, parts)

    def lengths() -> Lengths:
        longest = [max(len(row["input_ids"]), len(row["labels"])) for row in train.rows]
        found = [
            (tokens, sum(label != IGNORE for label in row["labels"]))
            for tokens, row in zip(longest, train.rows, strict=True)
        ]
        return Lengths([tokens for tokens, _ in found], [trained for _, trained in found])

    sources = [data.train[place].source for place in train.places]
    return trained_stage("sft", data, (train, held_out), sources, build, lengths, limit=limit)


def encoded_row(source: Demonstration, row: dict[str, Any], number: int, template: Template, limit: int) -> Row:
    """Return what encoder and decoder of an encoder-decoder model get of the `number`-th answer of a demonstration."""
    answer = AnswerTokens(template).answers(source)[number]
    ids = row["input_ids"]
    target = Tokens.labelled(answer.ids[:limit], row["labels"], answer.ids[limit:])
    return Row(source.source, {"input": Tokens(ids, [False] * len(ids)), "target": target}, parts_of(source))


def _uncut(rows: Sequence[TrainedRow], number: int, limit: int) -> TrainedRow:
    """Return the `number`-th row of a conversation that has a trained token within the limit."""
    return [row for row in rows if any(label != IGNORE for label in row.labels[:limit])][number]


def dpo_pairs(recipe: DPORecipe, written: Written) -> Stage:
    """Read and tokenise what `alignment dpo` trains, and try its trainer.

    Raises: AlignmentError as training does.
    """

    def require(train: TokenRows, held_out: TokenRows) -> None:
        few = [_least_certain(rows) for rows in (train, held_out)]

        def build(parts: Parts) -> None:
            dpo.dpo_trainer(
                parts.model,
                written.tokenizer,
                parts.arguments,
                reference=parts.reference,
                train=few[0],
                evaluation=few[1],
            )

        require_trainer(recipe, build, max_length=None)

    return pairs(recipe, written, require)


def pairs(recipe: Any, written: Written, require: Callable[[TokenRows, TokenRows], None] = lambda *_: None) -> Stage:
    """Read and tokenise pairs as `alignment dpo` does.

    Args:
        require: refuses rows, those of training and those held out.

    Raises: DataError as training does.
    """
    limit = sequence_limit(written.model, recipe.max_length)
    ties = dpo.takes_ties(recipe.library.get("loss_type", LOSS))
    data, train, held_out = preference_pairs.tokenised_split(recipe, written.template, limit, ties=ties)
    preference_pairs.require_pairs(train.rows)

    require(train.rows, held_out.rows)
    return pair_stage(data, train, held_out, written.template, limit)


def _least_certain(rows: TokenRows) -> TokenRows:
    """Return the first rows with the least certain one, as some losses take certain labels alone."""
    doubtful = min(range(len(rows)), key=lambda place: float(rows[place]["probability"]), default=0)
    return TokenRows([*rows[:ROWS], *rows[doubtful : doubtful + 1]])


def pair_stage(
    data: Split[Ranking], train: sft.Tokenised, held_out: sft.Tokenised, template: Template, limit: int
) -> Stage:
    """Return the pairs of `alignment.train.preference_pairs.tokenised_split`."""

    def answers(row: dict[str, Any]) -> list[Answered]:
        return [(row["prompt_ids"], row[side]) for side in ("chosen_ids", "rejected_ids")]

    def build(place: int) -> Row:
        row = train.rows[place]
        return pair_row(data.train[train.places[place]], answers(row), row["probability"], template.tokenizer)

    sources = [data.train[place].source for place in train.places]
    lengths = partial(lengths_of, lambda: (answer for row in train.rows for answer in answers(row)))
    return trained_stage("dpo", data, (train, held_out), sources, build, lengths, limit=limit, unit="pairs")


def pair_row(ranking: Ranking, sides: Sequence[Answered], probability: float, tokenizer: Any) -> Row:
    """Return the row of two answers, each with its prompt's tokens, the more probable one first."""
    parts = parts_of_prompt(ranking.prompt)
    for name, (_, ids) in zip(SIDES, sides, strict=True):
        text = str(tokenizer.decode(list(ids)))
        fitting = [response for response in ranking.responses if response.strip() and response.strip() in text]
        parts.append(Part(name, max(fitting, key=len, default="")))
    tokens = {name: Tokens.answered(*side) for name, side in zip(SIDES, sides, strict=True)}
    return Row(ranking.source, tokens, parts, probability)


def lengths_of(answers: Callable[[], Iterable[Answered]]) -> Lengths:
    """Count the tokens of prompts with their answers."""
    found = [(len(prompt) + len(ids), len(ids)) for prompt, ids in answers()]
    return Lengths([tokens for tokens, _ in found], [trained for _, trained in found])
