"""What a candidate forgot: its losses and task scores outside the domain against the baseline's, text by text.

Both policies read the same texts, so intervals resample pairs: the documents, or the rows of a task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from alignment.data.rows import Demonstration, Prompt, Ranking
from alignment.data.template import Template
from alignment.errors import DataError
from alignment.evaluate.metrics import Losses, pair_losses, pairs_of, text_losses, token_logps
from alignment.evaluate.questions import Answers, Questions, answer_questions
from alignment.evaluate.statistics import Bootstrap, Interval, mean_interval, sums_interval


@dataclass(frozen=True, slots=True)
class Outside:
    """What is read outside the domain: documents and tasks, by the path that the recipe names."""

    documents: dict[str, list[Demonstration]]
    tasks: dict[str, list[Ranking]]
    questions: Sequence[Questions] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """What one policy makes of `Outside`."""

    losses: dict[str, Losses]
    right: dict[str, list[float]]  # of each row: 1 if the preferred answer is likelier by token, 0.5 if as likely
    answers: dict[str, Answers] = field(default_factory=dict)  # to questions, with their scores

    @property
    def scores(self) -> dict[str, list[float]]:
        """The score of each row of all tasks, likelier answers and questions."""
        return self.right | {name: each.scores for name, each in self.answers.items()}


def text_of(row: Demonstration) -> str:
    """Return a document as one text."""
    return f"{_plain(row.prompt)}{row.completion}"


def _plain(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else "".join(f"{message['content']}\n" for message in prompt)


def require_comparable(outside: Outside | None, templates: Mapping[str, Template]) -> None:
    """Refuse documents that the policies do not read alike, before a model is loaded.

    Args:
        templates: of each policy, by its name.

    Raises: DataError if only some are encoder-decoder models, or a document has no prompt for an encoder.
    """
    encoded = [name for name, template in templates.items() if template.sides]
    if outside is None or not outside.documents or not encoded:
        return
    others = [name for name in templates if name not in encoded]
    if others:
        raise DataError(
            f"perplexity_datasets: the perplexity of {encoded[0]}, an encoder-decoder model, is of answers, and that "
            f"of {others[0]} of whole texts, so they do not compare; take perplexity_datasets out."
        )
    for row in (row for rows in outside.documents.values() for row in rows):
        pairs_of(templates[encoded[0]], row, None)


def measure_outside(model: nn.Module, template: Template, outside: Outside, *, batch_size: int, seed: int = 0) -> Kept:
    """Compute a policy's losses and task scores; the losses of an encoder-decoder model are those of answers alone.

    Args:
        batch_size: answers sampled or scored together. seed: of sampled answers.
    """
    if template.sides:
        losses = {name: pair_losses(model, template, rows, batch_size) for name, rows in outside.documents.items()}
    else:
        texts = {name: [text_of(row) for row in rows] for name, rows in outside.documents.items()}
        losses = {name: text_losses(model, template.tokenizer, each) for name, each in texts.items()}
    right = {name: _right(model, template, rows, batch_size) for name, rows in outside.tasks.items()}
    answers = {
        each.name: answer_questions(model, template, each, batch_size=batch_size, seed=seed)
        for each in outside.questions
    }
    return Kept(losses, right, answers)


def _right(model: nn.Module, template: Template, rows: Sequence[Ranking], batch_size: int) -> list[float]:
    prompts, answers = [], []
    for row in rows:
        for text in row.responses[:2]:
            prompts.append(template.prompt_ids(row.prompt))
            answers.append(template.answer_ids(row.prompt, text))
    logps = token_logps(model, prompts, answers, temperature=1.0, batch_size=batch_size)
    means = np.array([float(logp.mean()) for logp in logps]).reshape(-1, 2)
    better = [next(pair.probability for pair in row.pairs if {pair.first, pair.second} == {0, 1}) for row in rows]
    signs = np.array([1.0 if probability is not None and probability > 0.5 else -1.0 for probability in better])
    return [float(each) for each in (np.sign(means[:, 0] - means[:, 1]) * signs + 1) / 2]


def forgotten(candidate: Kept, baseline: Kept, how: Bootstrap) -> dict[str, dict[str, Any]]:
    """Return, by data set, the perplexity and the task score of a candidate against the baseline's.

    `perplexity_ratio` is exp of the difference of the nats of the same documents, per token of the baseline: above 1
    the candidate forgot. `score_difference` is the mean of the candidate's scores less the baseline's, row by row:
    below 0 it forgot. A data set is `forgotten` if the interval excludes no change on that side.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, theirs in baseline.losses.items():
        mine = candidate.losses[name]
        columns = np.concatenate([mine, theirs], axis=1)
        ratio = sums_interval(
            columns, range(len(mine)), lambda sums: np.exp((sums[:, 0] - sums[:, 2]) / sums[:, 3]), how
        )
        found[name] = {
            "perplexity_ratio": ratio.as_json(),
            "perplexity": _perplexity(mine, how).as_json(),
            "baseline_perplexity": _perplexity(theirs, how).as_json(),
            "forgotten": bool(ratio.low > 1),
        }
    for name, before in baseline.scores.items():
        after = candidate.scores[name]
        rows = range(len(before))
        difference = mean_interval(np.subtract(after, before), rows, how)
        found.setdefault(name, {}).update(
            score_difference=difference.as_json(),
            score=mean_interval(after, rows, how).as_json(),
            baseline_score=mean_interval(before, rows, how).as_json(),
        )
        found[name]["forgotten"] = found[name].get("forgotten", False) or bool(difference.high < 0)
    return found


def _perplexity(losses: Losses, how: Bootstrap) -> Interval:
    return sums_interval(losses, range(len(losses)), lambda sums: np.exp(sums[:, 0] / sums[:, 1]), how)
