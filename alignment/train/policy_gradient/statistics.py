"""The numbers that an update logs, and some of its answers as text."""

import math
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from alignment.data.template import Template
from alignment.ops.choices import KLEstimator
from alignment.ops.kl import kl_estimate
from alignment.ops.losses import importance_ratio
from alignment.ops.masking import masked_mean, masked_sum, masked_var
from alignment.ops.rewards import explained_variance
from alignment.train.policy_gradient.dynamic_sampling import equal_groups
from alignment.train.policy_gradient.experience import Experience, RoleOutputs, Rollout
from alignment.train.policy_gradient.objective import Losses
from alignment.train.policy_gradient.scoring import Scored

ROWS = 4  # answers written as text
KL_NAMES: dict[str, KLEstimator] = {"kl": "k1", "kl_k3": "k3"}


def rollout_metrics(
    rollout: Rollout, outputs: RoleOutputs, scored: Scored, made: Experience, rewards: Tensor
) -> dict[str, float]:
    """Return the numbers to log of one rollout. KL is summed over an answer."""
    mask, answers = rollout.mask, rollout.answer_ids
    lengths = mask.sum(1).float()
    words = [each.words for each in rollout.completions]
    means = {
        **_divergence(rollout, outputs),
        **_value_means(made),
        "answer_tokens": lengths.mean(),
        "completions/min_length": lengths.min(),
        "completions/max_length": lengths.max(),
        "fraction_stopped": rollout.stopped.float().mean(),
        **{f"score_{name}": part.nanmean() for name, part in scored.parts.items() if not part.isnan().all()},
    }
    engine_logp = rollout.engine_logp
    if engine_logp is not None and outputs.logp is not None:
        ratio = importance_ratio(outputs.logp, engine_logp)
        means["importance_ratio"], means["importance_ratio_max"] = masked_mean(ratio, mask), ratio[mask].max()
    return {
        "score": float(scored.total.mean()),
        "score_std": float(scored.total.std(correction=0)),
        **{name: float(value) for name, value in means.items()},
        **_explained_variance(made),
        **_groups(rollout, rewards),
        "distinct_answers": len(set(map(tuple, answers))) / len(answers),
        **{f"distinct_{n}": distinct_n(words, n) for n in (1, 2)},
        "tokens": float(lengths.sum()),
    }


def _groups(rollout: Rollout, rewards: Tensor) -> dict[str, float]:
    """Return the mean standard deviation of the rewards in a group, and the share of groups with equal rewards."""
    size = rollout.groups.count(rollout.groups[0])
    blocks = [group for group in dict.fromkeys(rollout.groups) for _ in range(size)]
    if size == 1 or rollout.groups != blocks:
        return {}  # a prompt has one answer, or several by chance
    grouped = rewards.view(-1, size)
    return {
        "group_reward_std": float((grouped - grouped[:, :1]).std(dim=1).mean()),
        "frac_reward_zero_std": float(equal_groups(rewards, size).float().mean()),
    }


def _divergence(rollout: Rollout, outputs: RoleOutputs) -> dict[str, Tensor]:
    """Return what is known before the update; `UpdateStatistics.add_rollout` measures the rest."""
    found = {} if outputs.entropy is None else {"entropy": masked_mean(outputs.entropy, rollout.mask)}
    for name, estimator in KL_NAMES.items():
        per_answer = _answer_kl(rollout, outputs, estimator)
        if per_answer is not None:
            found[name] = per_answer.mean()
    return found


def _value_means(made: Experience) -> dict[str, Tensor]:
    named = {"value_mean": made.values, "return_mean": made.returns}
    return {name: masked_mean(tensor, made.mask) for name, tensor in named.items() if tensor is not None}


def _explained_variance(made: Experience) -> dict[str, float]:
    if made.values is None or made.returns is None:
        return {}
    residual, of_returns = (masked_var(x, made.loss_mask) for x in (made.returns - made.values, made.returns))
    return {"explained_variance": explained_variance(residual, of_returns)}


def distinct_n(answers: Sequence[Sequence[int]], n: int) -> float:
    """Share of distinct n-grams among those of all answers, section 5.2 of https://arxiv.org/abs/1510.03055.

    Returns: 1 if there is no n-gram.
    """
    grams = [tuple(ids[i : i + n]) for ids in answers for i in range(len(ids) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def sample_rows(rollout: Rollout, outputs: RoleOutputs, scored: Scored, template: Template) -> list[dict[str, Any]]:
    """Return the first answers with their prompts and scores."""
    kl = _answer_kl(rollout, outputs, "k1")
    return [
        {
            "prompt": template.text(rollout.prompts[i]),
            "answer": template.answer_text(rollout.prompt_ids[i], rollout.completions[i].words),
            "score": float(scored.total[i]),
            **{f"score_{name}": float(part[i]) for name, part in scored.parts.items() if not part[i].isnan()},
            **({} if kl is None else {"kl": float(kl[i])}),
            "stopped": rollout.completions[i].stopped,
        }
        for i in range(min(ROWS, len(rollout.completions)))
    ]


def _answer_kl(rollout: Rollout, outputs: RoleOutputs, estimator: KLEstimator) -> Tensor | None:
    """Nats per answer, (answers,); None without the log-probabilities of policy and reference."""
    if outputs.logp is None or outputs.ref_logp is None:
        return None
    return masked_sum(kl_estimate(outputs.logp, outputs.ref_logp, estimator), rollout.mask, dim=1)


class UpdateStatistics:
    """Sums over the microbatches of one update, for the log."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.tokens = 0.0
        self.step_kl, self.step_tokens = 0.0, 0.0  # sum of old_kl_k3 in the current step, and over how many tokens
        self.stopped = False  # the policy moved past target_kl
        self.steps_skipped = 0.0
        self.ratio_min, self.ratio_max = math.inf, 0.0
        self.rollout_sums: dict[str, float] = {}
        self.answers = 0.0
        self.started = time.perf_counter()

    @torch.no_grad()
    def add(self, losses: Losses, advantages: Tensor, mask: Tensor) -> None:
        """Add one microbatch; advantages, mask: (batch, time)."""
        policy, value = losses.policy, losses.value
        parts = {
            "policy_loss": policy.loss,
            **({} if value is None else {"value_loss": value.loss}),
            "clip_fraction": policy.clipped,
            "clip_ratio/low_mean": policy.clipped & (advantages < 0),
            "clip_ratio/high_mean": policy.clipped & (advantages > 0),
            "dual_clip_fraction": policy.dual_clipped,
            **({} if value is None else {"value_clip_fraction": value.clipped}),
            "old_kl": -policy.ratio.log(),
            "old_kl_k3": policy.ratio - 1 - policy.ratio.log(),
        }
        if losses.kl is not None:
            parts["kl_loss"] = losses.kl
        numbers = torch.stack([masked_sum(part.float(), mask) for part in parts.values()]).tolist()
        sums = dict(zip(parts, numbers, strict=True))
        for name, number in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + number
        tokens = float(mask.sum())
        self.tokens += tokens
        self.step_kl += sums["old_kl_k3"]
        self.step_tokens += tokens
        self.ratio_min = min(self.ratio_min, float(torch.where(mask, policy.ratio, math.inf).min()))
        self.ratio_max = max(self.ratio_max, float(torch.where(mask, policy.ratio, 0.0).max()))

    @torch.no_grad()
    def add_rollout(self, mask: Tensor, entropy: Tensor, logp: Tensor, ref_logp: Tensor | None) -> None:
        """Add what a microbatch of the update's only step shows of the rollout; every tensor (batch, time)."""
        found = {"entropy": entropy, "answer_tokens": torch.ones_like(entropy)}
        if ref_logp is not None:
            found |= {name: kl_estimate(logp, ref_logp, estimator) for name, estimator in KL_NAMES.items()}
        for name, tensor in found.items():
            self.rollout_sums[name] = self.rollout_sums.get(name, 0.0) + float(masked_sum(tensor.float(), mask))
        self.answers += len(mask)

    def stop_past(self, target_kl: float, kl: float, tokens: float) -> None:
        """Stop the update if the last step's minibatch shows that the policy moved past `target_kl`.

        The numbers come from that step's forward pass, so they describe the policy before its optimizer step.

        Args:
            kl: sum of old_kl_k3 over `tokens`, the tokens of the minibatch on all processes.
        """
        self.stopped = self.stopped or kl > target_kl * tokens
        self.steps_skipped += self.stopped
        self.step_kl = self.step_tokens = 0.0

    def timed(self, metrics: dict[str, float]) -> dict[str, float]:
        """Return a rollout's metrics with the update's training time, and its tokens as tokens per second."""
        last = dict(metrics)
        tokens = last.pop("tokens")
        seconds = time.perf_counter() - self.started
        others = sum(last.get(f"seconds_{part}", 0.0) for part in ("sample", "score", "watch"))
        return {**last, "seconds_train": seconds - others, "tokens_per_second": tokens / seconds}

    def leave_out_skipped(self, logs: dict[str, float], steps: int) -> None:
        """Log the skipped steps, and take their zeros out of the Trainer's mean loss; its last norm is one of them.

        Args:
            steps: of the update.
        """
        logs["steps_skipped"] = self.steps_skipped
        if self.steps_skipped:
            logs["loss"] *= steps / (steps - self.steps_skipped)
            logs.pop("grad_norm", None)

    def means(self, gather: Any, device: torch.device) -> dict[str, float]:
        """Return per-token means, extremes of the ratio, and the peak memory of the process that held most."""
        extremes = {
            "ratio_min": -self.ratio_min,
            "ratio_max": self.ratio_max,
            "peak_memory_gib": peak_memory(device) / 2**30,
        }
        counted = [*self.rollout_sums.values(), self.answers, *self.sums.values(), self.tokens]
        own = torch.tensor([*counted, *extremes.values()], dtype=torch.float64)
        rows = gather(own.float().to(device)).view(-1, len(own)).cpu()
        totals = rows[:, : -len(extremes)].sum(0).tolist()
        of_rollout = dict(zip([*self.rollout_sums, "answers"], totals, strict=False))
        *sums, tokens = totals[len(of_rollout) :]
        found = {name: total / max(tokens, 1.0) for name, total in zip(self.sums, sums, strict=True)}
        found |= dict(zip(extremes, rows[:, -len(extremes) :].amax(0).tolist(), strict=True))
        ratios = {"ratio_min": -found["ratio_min"], "ratio_max": found["ratio_max"]}
        found |= _of_answers(**of_rollout)
        return found | (ratios if tokens else dict.fromkeys(ratios, 1.0))  # without a trained token no ratio moved


def _of_answers(answers: float, answer_tokens: float = 0.0, entropy: float = 0.0, **kl: float) -> dict[str, float]:
    """Return the entropy per token and the KL per answer from sums over a rollout; {} if none were measured."""
    if not answer_tokens:
        return {}
    return {"entropy": entropy / answer_tokens, **{name: total / answers for name, total in kl.items()}}


def peak_memory(device: torch.device) -> int:
    """Peak bytes since the process began: of tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
