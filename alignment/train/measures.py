"""What a rollout leaves in the log, and some of its answers as text."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from alignment.data.template import Template
from alignment.ops.kl import KLEstimator, kl_estimate
from alignment.ops.losses import importance_ratio
from alignment.ops.masking import masked_mean, masked_sum, masked_var
from alignment.ops.rewards import explained_variance
from alignment.train.experience import Experience
from alignment.train.rollouts import RoleNumbers, Rollout

ROWS = 4  # answers written as text


def rollout_metrics(rollout: Rollout, said: RoleNumbers, made: Experience) -> dict[str, float]:
    """The numbers to log, of the whole batch. KL is summed over an answer."""
    mask, answers = rollout.mask, rollout.answer_ids
    lengths = mask.sum(1).float()
    words = [each.words for each in rollout.completions]
    means = {
        "kl": _answer_kl(rollout, said, "k1").mean(),
        "kl_k3": _answer_kl(rollout, said, "k3").mean(),
        "entropy": masked_mean(said.entropy, mask),
        "value_mean": masked_mean(made.values, mask),
        "return_mean": masked_mean(made.returns, mask),
        "answer_tokens": lengths.mean(),
        "fraction_stopped": rollout.stopped.float().mean(),
        **{f"score_{name}": part.mean() for name, part in said.parts.items()},
    }
    engine_logp = rollout.engine_logp
    if engine_logp is not None:
        ratio = importance_ratio(said.logp, engine_logp)
        means["importance_ratio"], means["importance_ratio_max"] = masked_mean(ratio, mask), ratio[mask].max()
    residual, of_returns = (masked_var(x, made.trains) for x in (made.returns - made.values, made.returns))
    return {
        "score": float(said.scores.mean()),
        "score_std": float(said.scores.std(correction=0)),
        **{name: float(value) for name, value in means.items()},
        "explained_variance": explained_variance(residual, of_returns),
        "distinct_answers": len(set(map(tuple, answers))) / len(answers),
        **{f"distinct_{n}": distinct_n(words, n) for n in (1, 2)},
        "tokens": float(lengths.sum()),
    }


def distinct_n(answers: Sequence[Sequence[int]], n: int) -> float:
    """Share of different n-grams among all of a batch's, section 5.2 of https://arxiv.org/abs/1510.03055; 1 of none."""
    grams = [tuple(ids[i : i + n]) for ids in answers for i in range(len(ids) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def sample_rows(rollout: Rollout, said: RoleNumbers, template: Template) -> list[dict[str, Any]]:
    """The first answers with their prompts and scores."""
    kl = _answer_kl(rollout, said, "k1")
    return [
        {
            "prompt": template.text(rollout.prompts[i]),
            "answer": template.answer_text(rollout.prompt_ids[i], rollout.completions[i].words),
            "score": float(said.scores[i]),
            **{f"score_{name}": float(part[i]) for name, part in said.parts.items()},
            "kl": float(kl[i]),
            "stopped": rollout.completions[i].stopped,
        }
        for i in range(min(ROWS, len(rollout.completions)))
    ]


def _answer_kl(rollout: Rollout, said: RoleNumbers, estimator: KLEstimator) -> Tensor:
    """Nats per answer, (answers,)."""
    return masked_sum(kl_estimate(said.logp, said.ref_logp, estimator), rollout.mask, dim=1)
