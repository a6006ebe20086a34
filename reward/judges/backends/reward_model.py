"""A judge that is a reward model: a reward run, or any sequence classifier with one output."""

import math
import sys
from pathlib import Path
from typing import Any, TypeGuard

import torch

from alignment.calls.call import CallContext, ChatReply
from alignment.calls.caller import Caller
from alignment.config.schema.judges import RewardModelEntry
from alignment.data.rows import Prompt
from alignment.errors import DataError, ScorerError
from alignment.evaluate.judging import Comparison, Mode, Rating, Verdict
from alignment.policy.weights import weights_hash
from alignment.serving.batching import Batcher, ScoreRequest
from reward.models.ensemble import Ensemble


class RewardModelJudge:
    """Compares by Bradley and Terry's model, P(first better) = σ(r(first) - r(second)); pointwise, r is the rating.

    Answers that several threads ask about at the same time are scored together.
    """

    def __init__(self, name: str, mode: Mode, model_hash: str, batcher: Batcher, caller: Caller) -> None:
        self.name = name
        self.mode = mode
        self.prompt_hash = model_hash  # of the weights, as there is no prompt
        self.batcher = batcher
        self.caller = caller

    @classmethod
    def from_entry(cls, entry: RewardModelEntry, caller: Caller) -> "RewardModelJudge":
        """Load the model; a list of several, or a run with `num_members`, is an ensemble.

        Raises: ModelError if there is none.
        """
        size = entry.per_device_eval_batch_size
        model = Ensemble.load(entry.model_name_or_path, batch_size=size, trust_remote_code=entry.trust_remote_code)
        hashes = [weights_hash(path)[:16] if Path(path).is_dir() else path for path in model.paths]
        batcher = Batcher(model, batch_answers=size, most_waiting=sys.maxsize)  # each thread has one request at a time
        return cls(entry.label, entry.asks, "+".join(hashes), batcher, caller)

    def ask(self, question: Comparison | Rating) -> Verdict:
        """Score the question's answers.

        Returns: a verdict whose details have the scores; one that the model cannot read, as it is too long, is
            "truncated".
        """
        answers = [question.first, question.second] if isinstance(question, Comparison) else [question.answer]
        request = {"model": self.prompt_hash, "prompt": question.prompt, "answers": answers}
        context = CallContext(self.name, self.prompt_hash, question)
        reply = self.caller.call(context, request, lambda: self._score(question.prompt, answers))
        if reply.status != "ok":
            return Verdict(None, reply.status, reply.raw)
        kept = reply.details.get("scores")
        if not _are_scores(kept, len(answers)):  # a row of the store that was edited
            return Verdict(None, "parse_error", reply.raw)
        scores = tuple(float(score) for score in kept)
        details = {"scores": list(scores)}
        if isinstance(question, Rating):
            return Verdict(None, "ok", reply.raw, details, scores)
        probability = torch.tensor(scores[0] - scores[1], dtype=torch.float64).sigmoid().item()
        return Verdict(probability, "tie" if probability == 0.5 else "ok", reply.raw, details)

    def _score(self, prompt: Prompt, answers: list[str]) -> ChatReply:
        request = ScoreRequest([prompt] * len(answers), answers, [True] * len(answers))
        try:
            scores = self.batcher.submit(request).result()
        except DataError as error:  # only this question fails
            return ChatReply("truncated", str(error))
        except ScorerError as error:  # not a finite number
            return ChatReply("api_error", str(error))
        text = " ".join(f"{score:.6g}" for score in scores)
        return ChatReply("ok", text, text, details={"scores": scores})


build = RewardModelJudge.from_entry


def _are_scores(kept: Any, count: int) -> TypeGuard[list[float]]:
    return (
        isinstance(kept, list)
        and len(kept) == count
        and all(isinstance(score, int | float) and -math.inf < score < math.inf for score in kept)
    )
