"""From labelled answers to the rows of token ids that KTO trains on, with the mismatched answers of its KL term.

The KL of the policy from its reference is estimated on answers to other prompts (https://arxiv.org/abs/2402.01306,
section 4.1). As in TRL, a row has the answer of the row before it in its microbatch, and the first one that of the
last, so a microbatch keeps its rows: the order is drawn once, and stays over epochs. A last microbatch of one row takes
the answer before it; TRL would take its own.
"""

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

from alignment.config.schema import KTORecipe
from alignment.data.answer_tokens import AnswerTokens
from alignment.data.load import load_unpaired
from alignment.data.rows import Unpaired
from alignment.data.splits import Split, load_split
from alignment.data.template import Template
from alignment.errors import DataError
from alignment.train.preference_pairs import answer_within
from alignment.train.sft import Tokenised
from alignment.train.token_rows import TokenRows, in_parts

WITHOUT_KL = ("apo_zero_unpaired",)  # losses that estimate no KL
NEEDED = {"chosen": ("good",), "rejected": ("bad",), "margins": ("good", "bad")}  # last part of a metric → labels
MISMATCHED = "KL_completion_ids"  # TRL's name of the answer to another prompt


def tokenise_unpaired(
    rows: Sequence[Unpaired],
    template: Template,
    *,
    limit: int,
    on_bad_row: str = "stop",
    num_proc: int | None = None,
) -> Tokenised:
    """Make one row of each answer that has a label. An answer is never cut: half of it was not judged.

    Args:
        limit: tokens of prompt and answer.
        on_bad_row: "stop" raises at the first answer that does not fit, "skip" leaves it out.
        num_proc: processes that tokenise many rows.

    Raises: DataError naming the row.
    """
    result = in_parts(partial(_tokenised, limit=limit, on_bad_row=on_bad_row), rows, template, num_proc)
    result.tell(sum(label is not None for row in rows for label in row.desirable), limit)
    return result


def _tokenised(rows: Sequence[Unpaired], tokens: AnswerTokens, *, limit: int, on_bad_row: str) -> Tokenised:
    result = Tokenised(given=len(rows))
    for place, row in enumerate(rows):
        prompt_ids: list[int] = []
        with result.row(row.source, on_bad_row):
            prompt_ids = tokens.prompt_ids(row)
        labelled = [(index, label) for index, label in enumerate(row.desirable) if label is not None and prompt_ids]
        for index, label in labelled:
            where = f" answer {index + 1} of {len(row.responses)}" if len(row.responses) > 1 else ""
            with result.row(f"{row.source}{where}", on_bad_row):
                ids = answer_within(tokens, row, index, limit - len(prompt_ids))
                result.rows.append({"prompt_ids": prompt_ids, "completion_ids": ids, "probability": label})
        result.came_from(place)
    return result


def tokenised_split(recipe: KTORecipe, template: Template, limit: int) -> tuple[Split[Unpaired], Tokenised, Tokenised]:
    """Read and tokenise a recipe's answers: what was read, the training rows, the held-out rows.

    Raises: DataError.
    """
    data, processes = load_split(load_unpaired, recipe, recipe.seed), recipe.library.get("dataset_num_proc")
    train, held_out = (
        tokenise_unpaired(rows, template, limit=limit, on_bad_row=recipe.on_bad_row, num_proc=processes)
        for rows in (data.train, data.held_out)
    )
    return data, train, held_out


def require_evaluable(held_out: Sequence[dict[str, Any]], *, loss_type: str, best_by: str | None = None) -> None:
    """Refuse held-out answers of which an evaluation has no KL, or not the metric that chooses the best checkpoint.

    The KL of one answer alone would be its own log ratio, and its loss would not depend on it.

    Args:
        best_by: `metric_for_best_model`.

    Raises: DataError.
    """
    if len(held_out) == 1 and loss_type not in WITHOUT_KL:
        raise DataError(
            "1 labelled answer is held out, and the KL of an evaluation needs two or more; hold out more answers or "
            "none, or set loss_type: apo_zero_unpaired."
        )
    needed = NEEDED.get((best_by or "").rpartition("/")[2], ())
    found = {"good" if row["probability"] >= 0.5 else "bad" for row in held_out} if needed else set()
    if missing := [label for label in needed if found and label not in found]:
        raise DataError(
            f"metric_for_best_model {best_by} needs {missing[0]} answers among the held-out ones, which have none; "
            "hold out others, or choose by loss."
        )


def ordered(rows: Sequence[dict[str, Any]], *, seed: int, microbatch: int | None) -> TokenRows:
    """Return the rows in the order in which they are trained, each with its mismatched answer.

    Args:
        microbatch: rows whose answers are exchanged; None: no row gets a mismatched answer.
    """
    places = list(range(len(rows)))
    random.Random(seed).shuffle(places)
    made = TokenRows()
    for position, place in enumerate(places):
        row = dict(rows[place])
        if microbatch is not None:
            begin = position - position % microbatch
            end = min(begin + microbatch, len(places))
            before = end - 1 if position == begin and end - begin > 1 else position - 1
            row[MISMATCHED] = rows[places[before]]["completion_ids"]
        made.append(row)
    return made
