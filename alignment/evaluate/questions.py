"""Answers of a policy to questions of other domains, and their scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from alignment.data.rows import Prompt
from alignment.data.source_rows import Loaded
from alignment.data.template import Template
from alignment.errors import DataError
from alignment.policy.inference import context_limit
from alignment.rollout.context import prompt_room
from alignment.rollout.engine import Sampling
from alignment.rollout.transformers_engine import TransformersEngine

Score = Callable[
    [Sequence[Prompt], Sequence[str], Sequence[bool], Sequence[Mapping[str, Any]]], list[float]
]  # of prompts, answers, whether each ended by itself, and the columns of each row


@dataclass(frozen=True, slots=True)
class Questions:
    """Prompts with the columns of their rows, and what scores an answer."""

    name: str
    loaded: Loaded[Prompt]
    score: Score
    max_new_tokens: int
    temperature: float  # 0: the likeliest token, always


@dataclass(frozen=True, slots=True)
class Answers:
    """One policy's answers to questions, one per prompt."""

    texts: list[str]
    scores: list[float]


def answer_questions(
    model: nn.Module, template: Template, questions: Questions, *, batch_size: int, seed: int
) -> Answers:
    """Sample and score an answer to each prompt.

    Raises: DataError if a prompt and its answer do not fit the model's context.
    """
    prompts = questions.loaded.rows
    prompt_ids = require_fitting(questions, template, context_limit(model))
    sampling = Sampling(
        max_new_tokens=questions.max_new_tokens,
        temperature=questions.temperature,
        stop_token_ids=template.stop_token_ids,
        seed=seed,
    )
    pad = template.tokenizer.pad_token_id
    engine = TransformersEngine(model, template.stop_token_ids[0] if pad is None else pad, batch_size)
    found = engine.generate(prompt_ids, sampling)
    texts = [template.answer_text(before, each.words) for before, each in zip(prompt_ids, found, strict=True)]
    columns = questions.loaded.columns or [{} for _ in prompts]
    return Answers(texts, questions.score(prompts, texts, [each.stopped for each in found], columns))


def require_fitting(questions: Questions, template: Template, context: int | None) -> list[list[int]]:
    """Return the tokens of each prompt.

    Args:
        context: most tokens that the model reads; None: any number.

    Raises: DataError if a prompt and its answer do not fit.
    """
    prompt_ids = [template.prompt_ids(prompt) for prompt in questions.loaded.rows]
    room = prompt_room(context, questions.max_new_tokens, encoded=template.sides is not None)
    for ids, source in zip(prompt_ids, questions.loaded.sources, strict=True):
        if room is not None and len(ids) > room:
            raise DataError(
                f"{source}: the prompt has {len(ids)} tokens, which leaves no {questions.max_new_tokens} for an "
                f"answer in the model's context of {context}; lower max_new_tokens of outside_questions "
                f"{questions.name}, or take the row out."
            )
    return prompt_ids


def answer_rows(questions: Sequence[Questions], answers: Mapping[str, Mapping[str, Answers]]) -> list[dict[str, Any]]:
    """Return a row per prompt, with the answer and the score of each policy; answers: by policy, then name."""
    return [
        {
            "questions": each.name,
            "prompt": prompt,
            "answers": {policy: found[each.name].texts[place] for policy, found in answers.items()},
            "scores": {policy: found[each.name].scores[place] for policy, found in answers.items()},
        }
        for each in questions
        for place, prompt in enumerate(each.loaded.rows)
    ]
