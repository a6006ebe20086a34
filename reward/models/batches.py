"""Encodes rankings and collates them into the tensors that a reward model trains on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from alignment.config.schema import RewardRecipe
from alignment.data.answer_tokens import AnswerTokens
from alignment.data.load import load_rankings
from alignment.data.rows import USABLE, Prompt, Ranking
from alignment.data.splits import Split, load_split, prompt_key
from alignment.data.template import Template
from alignment.errors import DataError
from alignment.meter import say_left_out, say_once
from alignment.train.token_rows import in_parts


@dataclass(frozen=True, slots=True)
class EncodedRanking:
    """One prompt: token ids of the prompt with each answer, and its usable pairs."""

    input_ids: list[list[int]]
    answer_tokens: list[int]  # number of tokens of each answer, including the stop token
    pairs: list[tuple[int, int, float, float]]  # first, second, probability that first is better, margin
    prompt: str = ""  # key that equal prompts share; "" if all rankings have different prompts
    place: int = 0  # index of its ranking among those given


@dataclass(slots=True)
class Encoded:
    """The encoded rankings, and what was skipped."""

    rows: list[EncodedRanking] = field(default_factory=list)
    skipped: list[str] = field(
        default_factory=list
    )  # "file:line: reason", answers that do not fit or cannot be written
    without_pairs: int = 0  # prompts none of whose pairs is usable
    given: int = 0  # rankings

    def add(self, other: "Encoded") -> None:
        """Add what was made of the rankings that follow."""
        self.rows += [replace(row, place=self.given + row.place) for row in other.rows]
        self.skipped += other.skipped
        self.without_pairs += other.without_pairs
        self.given += other.given

    def counts(self) -> dict[str, int]:
        """Return the counts for the manifest."""
        return {
            "prompts": len(self.rows),
            "answers": sum(len(row.input_ids) for row in self.rows),
            "pairs": sum(len(row.pairs) for row in self.rows),
            "prompts_without_usable_pairs": self.without_pairs,
            "answers_left_out": len(self.skipped),
        }


def encode_rankings(
    rankings: Sequence[Ranking],
    template: Template,
    *,
    max_length: int | None,
    on_bad_row: str = "stop",
    num_proc: int | None = None,
) -> Encoded:
    """Tokenise every answer with its prompt; keep the pairs with usable labels.

    An answer that exceeds `max_length` is never truncated, because its label is of the whole answer.

    Args:
        max_length: maximum number of tokens of prompt and answer; None: no limit.
        on_bad_row: "stop" raises at the first answer that is too long, "skip" leaves out that answer and its pairs.
        num_proc: number of processes that tokenise many rankings.

    Raises: DataError with the row, or if no row is left to train on.
    """
    work = partial(_encoded, max_length=max_length, on_bad_row=on_bad_row)
    encoded = in_parts(work, rankings, template, num_proc)
    say_left_out(encoded.skipped, sum(len(ranking.responses) for ranking in rankings), "answers")
    if rankings and not encoded.rows:
        raise DataError(
            f"none of {len(rankings)} rankings (the first at {rankings[0].source}) has two comparable answers: "
            f"{len(encoded.skipped)} answers were left out, and only pairs of status ok or tie count."
        )
    return encoded


def _encoded(rankings: Sequence[Ranking], tokens: AnswerTokens, *, max_length: int | None, on_bad_row: str) -> Encoded:
    encoded, template = Encoded(given=len(rankings)), tokens.template
    for place, ranking in enumerate(rankings):
        pairs = [
            (pair.first, pair.second, pair.probability, abs(pair.margin or 0.0))
            for pair in ranking.pairs
            if pair.status in USABLE and pair.probability is not None
        ]
        compared = sorted({index for first, second, *_ in pairs for index in (first, second)})
        sequences, lengths = {}, {}
        prompt_ids: list[int] = []
        for index in compared:
            try:
                prompt_ids = prompt_ids or tokens.prompt_ids(ranking)
                answer_ids = tokens.answer_ids(ranking, index)
                ids = joined(prompt_ids, answer_ids, max_length)
                if template.tokenizer.pad_token_id not in template.stop_token_ids:
                    require_visible_end(ids, template.tokenizer.pad_token_id)
                sequences[index], lengths[index] = ids, len(answer_ids)
            except DataError as error:
                fault = f"{ranking.source}: answer {index + 1} of {len(ranking.responses)}: {error}"
                if on_bad_row == "stop":
                    raise DataError(
                        f"{fault.rstrip('.')}. Or set on_bad_row: skip to leave such answers out."
                    ) from None
                encoded.skipped.append(fault)
        position = {index: place for place, index in enumerate(sequences)}
        kept = [(position[i], position[j], p, m) for i, j, p, m in pairs if i in position and j in position]
        if kept:
            key = prompt_key(ranking)
            encoded.rows.append(EncodedRanking(list(sequences.values()), list(lengths.values()), kept, key, place))
        else:
            encoded.without_pairs += 1
    return encoded


def encoded_split(
    recipe: RewardRecipe, template: Template, *, limit: int | None, seed: int
) -> tuple[Split[Ranking], Encoded, Encoded]:
    """Read and tokenise a recipe's rankings; return the data, the training rankings and the held-out ones.

    Args:
        limit: tokens of prompt and answer. seed: decides which prompts are held out.

    Raises: DataError.
    """
    data = load_split(load_rankings, recipe, seed)
    train, held_out = (
        encode_rankings(
            rows, template, max_length=limit, on_bad_row=recipe.on_bad_row, num_proc=recipe.dataset_num_proc
        )
        for rows in (data.train, data.held_out)
    )
    probabilities = [pair[2] for row in train.rows for pair in row.pairs]
    if probabilities and all(probability == 0.5 for probability in probabilities):
        say_once(
            f"none of the {len(probabilities):,} training pairs has a winner: the reward model learns that all answers "
            "are equal. Check the labels with `alignment audit`."
        )
    return data, train, held_out


def encode(
    template: Template,
    prompt: Prompt,
    answer: str,
    *,
    max_length: int | None = None,
    stop: bool = True,
    sampled: bool = False,
) -> tuple[list[int], int]:
    """Return the ids of a prompt with its answer, the stop token included where `stop`, and the answer's tokens.

    A `sampled` answer, which a model wrote, may have unfinished reasoning.

    Raises: DataError if they are more than `max_length`, or the template refuses them.
    """
    prompt_ids = template.prompt_ids(prompt)
    answer_ids = (template.sampled_ids if sampled else template.answer_ids)(prompt, answer, stop=stop)
    return joined(prompt_ids, answer_ids, max_length), len(answer_ids)


def joined(prompt_ids: list[int], answer_ids: list[int], max_length: int | None) -> list[int]:
    """Return the ids of a prompt with its answer.

    Raises: DataError if they are more than `max_length`.
    """
    tokens = len(prompt_ids) + len(answer_ids)
    if max_length is not None and tokens > max_length:
        raise DataError(
            f"prompt and answer are {tokens} tokens, more than the {max_length} that fit; raise max_length where the "
            "model's context allows it, or shorten the prompt."
        )
    return prompt_ids + answer_ids


def pad(sequences: Sequence[list[int]], pad_token_id: int) -> dict[str, Tensor]:
    """Pad on the right: `input_ids` and `attention_mask`, both (sequences, time) int64.

    Raises: DataError if a sequence ends in `pad_token_id`, as a truncated text may: a sequence classifier reads the
        score at the last token that is not `pad_token_id`.
    """
    for ids in sequences:
        require_visible_end(ids, pad_token_id)
    width = max(map(len, sequences))
    input_ids = torch.full((len(sequences), width), pad_token_id, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(sequences):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        attention_mask[row, : len(ids)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def require_visible_end(ids: Sequence[int], pad_token_id: int) -> None:
    """Refuse a sequence that ends in the padding token.

    Raises: DataError.
    """
    if ids[-1] == pad_token_id:
        raise DataError(
            f"an answer ends in the reward model's padding token (id {pad_token_id}), so its end cannot be "
            "distinguished from padding; remove that token from the text, or leave the answer out."
        )


@dataclass(frozen=True, slots=True)
class RankingCollator:
    """A batch of prompts as one flat batch of all their answers.

    Keys: `index` (prompts,) the prompt's place in its data set, first so that the Trainer counts prompts; `answers`
    (prompts,) how many each has; `input_ids`, `attention_mask` (answers, time); `first`, `second` (pairs,) indices of
    answers; `probability`, `margin` (pairs,) float32; `prompt` (pairs,) the prompt's place in this batch.
    """

    pad_token_id: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Collate `{"index": int, "ranking": EncodedRanking}` rows."""
        rankings: list[EncodedRanking] = [row["ranking"] for row in rows]
        pairs, start = [], 0
        for place, ranking in enumerate(rankings):
            pairs += [(start + i, start + j, p, m, place) for i, j, p, m in ranking.pairs]
            start += len(ranking.input_ids)
        first, second, probability, margin, prompt = zip(*pairs, strict=True)
        return {
            "index": torch.tensor([row["index"] for row in rows]),
            "answers": torch.tensor([len(ranking.input_ids) for ranking in rankings]),
            **pad([ids for ranking in rankings for ids in ranking.input_ids], self.pad_token_id),
            "first": torch.tensor(first),
            "second": torch.tensor(second),
            "probability": torch.tensor(probability, dtype=torch.float32),
            "margin": torch.tensor(margin, dtype=torch.float32),
            "prompt": torch.tensor(prompt),
        }
