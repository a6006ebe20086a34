"""Supervised fine-tuning: demonstrations as rows of tokens, and the trainer of a model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from transformers import TrainerCallback
from trl import SFTConfig

from alignment.config.schema import SFTRecipe
from alignment.data.answer_tokens import AnswerTokens
from alignment.data.encoded import Sides
from alignment.data.load import load_demonstrations
from alignment.data.masks import IGNORE, Answer, TrainedRow
from alignment.data.rows import Demonstration
from alignment.data.splits import Split, load_split
from alignment.data.template import Template
from alignment.errors import DataError, RecipeError
from alignment.meter import say_left_out, say_once
from alignment.policy.adapters import preserve_dtype
from alignment.rollout.context import is_encoder_decoder
from alignment.train.demonstration_trainers import DemonstrationTrainer, EncodedTrainer
from alignment.train.token_rows import TokenRows, as_dataset, in_parts


@dataclass(slots=True)
class Tokenised:
    """Rows ready for a trainer, and what was cut or left out."""

    rows: TokenRows = field(default_factory=TokenRows)
    places: list[int] = field(default_factory=list)  # of each row: which demonstration or ranking it comes from
    given: int = 0  # demonstrations or rankings
    skipped: list[str] = field(default_factory=list)  # "file:line: reason"
    truncated: int = 0
    split: int = 0  # conversations that make several rows
    same: int = 0  # pairs of one answer twice, which are left out

    def add(self, other: "Tokenised") -> None:
        """Add what was made of the demonstrations or rankings that follow."""
        self.rows.extend(other.rows)
        self.places += [self.given + place for place in other.places]
        self.given += other.given
        self.skipped += other.skipped
        self.truncated += other.truncated
        self.split += other.split
        self.same += other.same

    def came_from(self, place: int) -> None:
        """Note that the rows added since the last call come from demonstration or ranking number `place`."""
        self.places += [place] * (len(self.rows) - len(self.places))

    @contextmanager
    def row(self, source: str, on_bad_row: str) -> Iterator[None]:
        """Name the row in what goes wrong with it: end there, or note it and go on where `on_bad_row` is skip."""
        try:
            yield
        except DataError as error:
            if on_bad_row == "stop":
                raise DataError(f"{source}: {error} (on_bad_row: skip leaves such rows out).") from error
            self.skipped.append(f"{source}: {error}")

    def counts(self) -> dict[str, int]:
        """What the manifest records."""
        more = {"conversations_split": self.split, "pairs_of_one_answer": self.same}
        counted = {"rows": len(self.rows), "rows_truncated": self.truncated, "rows_skipped": len(self.skipped)}
        return counted | {name: count for name, count in more.items() if count}

    def tell(self, count: int, limit: int) -> None:
        """Write how many of `count` rows are cut to `limit` tokens, split or left out, where there are some."""
        if self.truncated:
            say_once(
                f"cut {self.truncated:,} of {count:,} rows to their first {limit:,} tokens; the end of these answers "
                "is not learned, raise max_length where the model's context allows it"
            )
        if self.split:
            say_once(
                f"the chat template rewrites earlier turns: {self.split:,} of {count:,} conversations are split, each "
                f"answer in the context in which it is generated; {len(self.rows):,} rows (history_strategy: split)"
            )
        if self.same:
            say_once(
                f"left out {self.same:,} pairs whose two answers are the same, but for white space around them: they "
                "teach no preference"
            )
        say_left_out(self.skipped, count, "rows")


def tokenise_demonstrations(
    demonstrations: Sequence[Demonstration],
    template: Template,
    *,
    limit: int,
    on_bad_row: str = "stop",
    history_strategy: str = "split",
    num_proc: int | None = None,
) -> Tokenised:
    """Tokenise demonstrations; one that is too long loses its end, as is usual in fine-tuning.

    Args:
        limit: tokens of prompt and answer.
        on_bad_row: "stop" raises at the first row of which no answer token is left, "skip" leaves it out.
        history_strategy: where the chat template rewrites earlier turns, "split" makes a row of each answer in the
            context in which it is generated, "refuse" takes the conversation for a bad row.
        num_proc: processes that tokenise many rows.

    Raises: DataError naming the row.
    """
    work = partial(_tokenised, limit=limit, on_bad_row=on_bad_row, history_strategy=history_strategy)
    result = in_parts(work, demonstrations, template, num_proc)
    result.tell(len(demonstrations), limit)
    return result


def _tokenised(
    demonstrations: Sequence[Demonstration],
    tokens: AnswerTokens,
    *,
    limit: int,
    on_bad_row: str,
    history_strategy: str,
) -> Tokenised:
    result = Tokenised(given=len(demonstrations))
    for place, row in enumerate(demonstrations):
        with result.row(row.source, on_bad_row):
            if tokens.template.sides:
                answers, sides = tokens.answers(row), tokens.template.sides
                sides.require_read(row, answers, limit)
                _encode(result, answers, sides, limit)
                result.came_from(place)
                continue
            rows = tokens.demonstrations(row)
            if len(rows) > 1 and history_strategy == "refuse":
                raise DataError(
                    f"the chat template rewrites earlier turns, so the conversation makes {len(rows)} rows, each with "
                    "the context in which its answers are generated; set history_strategy: split to train on them"
                )
            _cut(result, rows, limit)
            result.came_from(place)
    return result


def tokenised_split(
    recipe: SFTRecipe, template: Template, limit: int
) -> tuple[Split[Demonstration], Tokenised, Tokenised]:
    """Read and tokenise a recipe's demonstrations: what was read, the training rows, the held-out rows.

    Raises: DataError.
    """
    data = load_split(load_demonstrations, recipe, recipe.seed)
    how = {"on_bad_row": recipe.on_bad_row, "history_strategy": recipe.history_strategy}
    processes = recipe.library.get("dataset_num_proc")
    train, held_out = (
        tokenise_demonstrations(rows, template, limit=limit, num_proc=processes, **how)
        for rows in (data.train, data.held_out)
    )
    return data, train, held_out


def _cut(result: Tokenised, rows: Sequence[TrainedRow], limit: int) -> None:
    """Add one conversation's rows, cut at `limit`; rows that have no answer within it are left out.

    Raises: DataError if that is all of them.
    """
    kept = [row for row in rows if any(label != IGNORE for label in row.labels[:limit])]
    if not kept:
        raise DataError(
            f"no token of the answer is among the first {limit} of {len(rows[0].input_ids)}, which is as many as "
            "max_length and the model's context allow; raise max_length or shorten the prompt"
        )
    result.split += len(rows) > 1
    result.truncated += any(len(row.input_ids) > limit for row in rows)
    result.rows.extend({"input_ids": row.input_ids[:limit], "labels": row.labels[:limit]} for row in kept)


def _encode(result: Tokenised, answers: Sequence[Answer], sides: Sides, limit: int) -> None:
    """Add one conversation's answers, each a row of its own behind its prompt, and cut at `limit`."""
    for answer in answers:
        read = sides.decoder_inputs(answer.ids)[:limit]
        row = {"input_ids": answer.context, "decoder_input_ids": read, "labels": answer.labels[:limit]}
        result.rows.append(row)
    result.truncated += any(len(answer.ids) > limit for answer in answers)


def require_learnable(
    rows: Sequence[dict[str, Any]], stop_token_ids: Sequence[int], skipped: Sequence[str] = ()
) -> None:
    """Reject data without a trained answer or without a trained stop token; `skipped` has the reasons.

    Raises: DataError.
    """
    if not rows and skipped:
        raise DataError(f"no training row is left: all {len(skipped)} were left out, the first is {skipped[0]}")
    learned = {label for row in rows for label in row["labels"]} - {IGNORE}
    if not learned:
        raise DataError(
            f"all labels of all {len(rows)} training rows are masked, so there is nothing to learn; check that the "
            "data has answers and that the chat template marks the assistant's turns."
        )
    if learned.isdisjoint(stop_token_ids):
        raise DataError(
            f"no training row teaches a stop token (ids {sorted(stop_token_ids)}), so the model would never end an "
            "answer; raise max_length if every row is cut, or set eos_token to the token that ends an answer in the "
            "chat template."
        )


def sft_trainer(
    model: Any,
    tokenizer: Any,
    arguments: SFTConfig,
    *,
    train: Sequence[dict[str, Any]],
    evaluation: Sequence[dict[str, Any]] = (),
    callbacks: list[TrainerCallback] | None = None,
) -> DemonstrationTrainer:
    """Build the trainer.

    Packing keeps each row's own positions, and with no attention mask given transformers derives from them that rows
    of one pack do not see each other, in every attention implementation. TRL's `wrapped` strategy has no such
    borders, so it is refused. An encoder-decoder model gets rows of its own.

    Raises: RecipeError if TRL refuses the recipe's combination of keys.
    """
    if arguments.packing and arguments.packing_strategy == "wrapped":
        raise RecipeError(["packing_strategy wrapped lets answers see other rows' text and cuts rows in two; use bfd."])
    try:
        make = EncodedTrainer if is_encoder_decoder(model.config) else DemonstrationTrainer
        with preserve_dtype(model):
            return make(
                model,
                args=arguments,
                train_dataset=as_dataset(train),
                eval_dataset=as_dataset(evaluation) if evaluation else None,
                processing_class=tokenizer,
                callbacks=callbacks,
            )
    except (ValueError, NotImplementedError) as error:
        raise RecipeError([str(error)]) from error
