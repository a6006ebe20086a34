"""Scores answers with a trained reward model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from alignment.config.schema import ModelKeys
from alignment.data.answer_tokens import AnswerTokens
from alignment.data.rows import Prompt, Ranking
from alignment.data.sampled import KEY, Record
from alignment.data.template import Template
from alignment.errors import DataError
from alignment.manifest import read_manifest
from alignment.meter import say_once
from alignment.policy.held import held_as_trained
from alignment.policy.inference import best_device, context_limit
from alignment.policy.tokenizer import load_tokenizer
from reward.models.batches import encode, joined, pad
from reward.models.loading import load_reward_model, score_sequences

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RewardScorer:
    """A reward model for inference."""

    model: Any
    template: Template
    pad_token_id: int
    batch_size: int  # sequences scored together
    context: int | None  # context length in tokens; None: no limit
    manifest: dict[str, Any]  # of the run, {} for other models; score_mean and score_std are its scale
    tokens: AnswerTokens = field(init=False)

    def __post_init__(self) -> None:
        """Render answers by the model's own template."""
        object.__setattr__(self, "tokens", AnswerTokens(self.template))

    @classmethod
    def load(
        cls,
        path: str,
        *,
        device: str | torch.device | None = None,
        batch_size: int = 64,
        trust_remote_code: bool = False,
    ) -> "RewardScorer":
        """Load a reward run, or any sequence classifier with one output.

        Args:
            device: default: the GPU, if there is one.
            trust_remote_code: run Python code of the model's folder.

        Raises: ModelError if `path` has no model, or one without a score head.
        """
        manifest = read_manifest(Path(path)) if Path(path).is_dir() else {}
        given = {"model_name_or_path": str(path), "trust_remote_code": trust_remote_code}
        keys = ModelKeys(**{**held_as_trained(path), **given})
        tokenizer = load_tokenizer(keys)
        template = Template(tokenizer, None, keys.eos_token)
        model = load_reward_model(keys, tokenizer, template.stop_token_ids, trainable=False)
        if not keys.bits:
            model = model.to(device or best_device())
        return cls(model.eval(), template, tokenizer.pad_token_id, batch_size, context_limit(model), manifest)

    @property
    def reads_messages(self) -> bool:
        """Whether the model has a chat template, and was not trained on prompts that are text."""
        return bool(self.template.chat_template) and self.manifest.get("prompt_kind") != "text"

    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        stopped: Sequence[bool] | None = None,
        tokens: Sequence[Record] | None = None,
    ) -> list[float]:
        """Score each answer to its prompt, in reward units, independently of the other answers.

        Args:
            stopped: whether each answer ended with a stop token; one that was cut off is scored without it, as in
                training. Default: all did.
            tokens: of each answer, as sampled; used if they are of the model's tokenizer and chat template.

        Raises: DataError if prompt and answer together exceed the model's context.
        """
        return self.score_tokens(encode_all(self.encode, prompts, answers, stopped, tokens))

    def score_sampled(
        self, prompts: Sequence[Prompt], answers: Sequence[str], *, stopped: Sequence[bool], tokens: Sequence[Record]
    ) -> list[float]:
        """Score as `score`, for PPO's rollouts."""
        return self.score(prompts, answers, stopped=stopped, tokens=tokens)

    @torch.inference_mode()
    def score_tokens(self, sequences: Sequence[list[int]]) -> list[float]:
        """Score sequences of token ids of prompt and answer, the longest first, in batches of similar length."""
        self.tokens.tell()
        scores = [0.0] * len(sequences)
        order = sorted(range(len(sequences)), key=lambda place: -len(sequences[place]))
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            batch = pad([sequences[place] for place in places], self.pad_token_id)
            batch = {key: tensor.to(self.model.device) for key, tensor in batch.items()}
            for place, score in zip(places, score_sequences(self.model, **batch).tolist(), strict=True):
                scores[place] = score
        return scores

    def encode_answer(self, ranking: Ranking, place: int, *, where: str) -> list[int]:
        """Return the token ids of a prompt with one of its answers, exactly as training encodes them.

        Raises: DataError, which begins with `where`, if training would refuse the answer, or if it exceeds the context.
        """
        self._tell_kind(ranking.prompt)
        try:
            ids = self.tokens.answer_ids(ranking, place)
            return joined(self.tokens.prompt_ids(ranking), ids, self.context)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None

    def encode(
        self, prompt: Prompt, answer: str, stopped: bool = True, tokens: Sequence[Record] = (), *, where: str
    ) -> list[int]:
        """Return the token ids of a prompt and an answer that a policy wrote; a DataError begins with `where`.

        Args:
            tokens: the record of this answer, if it was sampled.
        """
        self._tell_kind(prompt)
        try:
            if tokens:
                sampled = Ranking(prompt, [answer], [], {"stopped": [stopped], KEY: tokens})
                return joined(self.tokens.prompt_ids(sampled), self.tokens.answer_ids(sampled, 0), self.context)
            return encode(self.template, prompt, answer, max_length=self.context, stop=stopped, sampled=True)[0]
        except DataError as error:
            raise DataError(f"{where}: {error}") from None

    def _tell_kind(self, prompt: Prompt) -> None:
        """Report prompts of another kind than those of training."""
        trained, kind = self.manifest.get("prompt_kind"), "text" if isinstance(prompt, str) else "messages"
        if trained not in (None, kind):
            run = self.manifest.get("recipe", {}).get("output_dir", "the reward model")
            say_once(
                f"{run} was trained on prompts that are {trained}, and scores prompts that are {kind}: these scores "
                f"are not meaningful. Give {trained}."
            )


def encode_all(
    encode: Callable[..., T],
    prompts: Sequence[Prompt],
    answers: Sequence[str],
    stopped: Sequence[bool] | None,
    tokens: Sequence[Record] | None,
) -> list[T]:
    """Encode each answer with its prompt; arguments as in `RewardScorer.score`.

    Args:
        encode: `RewardScorer.encode`, or a function with the same arguments.

    Raises: DataError from `encode`, which begins with the number of the answer.
    """
    ended = [True] * len(answers) if stopped is None else stopped
    records = [()] * len(answers) if tokens is None else [(record,) for record in tokens]
    rows = list(zip(prompts, answers, ended, records, strict=True))
    return [encode(*row, where=f"answer {place} of {len(rows)}") for place, row in enumerate(rows, 1)]
