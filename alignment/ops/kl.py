"""KL(policy ‖ reference) from samples of the policy, and its adaptive coefficient."""

from torch import Tensor

from alignment.ops.choices import KLEstimator
from alignment.ops.masking import require_same_shape

MAX_LOG_RATIO = 20.0  # exp(20) = 4.9e8; past it a ratio carries no information and float16 overflows
MAX_K3 = 10.0  # nats; one token's exp(-d) must not outweigh a whole batch


def kl_estimate(logp: Tensor, ref_logp: Tensor, estimator: KLEstimator, *, bound: float | None = MAX_K3) -> Tensor:
    """KL to the reference in nats per token, http://joschu.net/blog/kl-approx.html.

    With d = logp - ref_logp: k1 = d (unbiased, may be negative); k2 = d²/2 (low variance, biased); k3 = exp(-d) - 1 + d
    (unbiased, never negative). The exponent is clamped at ±20 and k3 at `bound`, as in verl 0.9.1; 10 nats bind
    only if the reference's probability of a token is at least e^2.6 = 13 times the policy's.

    As a loss, differentiated through `logp`, only k2 has the KL's gradient in the mean, d·∇logp; k1's is zero in the
    mean, and k3's, (1 - exp(-d))·∇logp, is that of KL(reference ‖ policy), the same to first order in d
    (https://arxiv.org/abs/2510.01555, https://arxiv.org/abs/2506.09477).

    Args:
        logp, ref_logp: log-probabilities of the sampled tokens, one shape.
        bound: nats, of k3; None for none.
    Raises: ShapeError, ValueError for an unknown estimator.
    """
    require_same_shape(logp=logp, ref_logp=ref_logp)
    difference = logp - ref_logp
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return 0.5 * difference**2
    if estimator == "k3":
        negative = (-difference).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        k3 = negative.expm1() - negative
        return k3 if bound is None else k3.clamp(max=bound)
    raise ValueError(f"kl_estimator {estimator!r} is unknown; use k1, k2 or k3")


def adapted_kl_coef(kl_coef: float, kl: float, *, target: float, horizon: int, answers: int) -> float:
    """The next update's coefficient, section 2.2 of https://arxiv.org/abs/1909.08593.

    e = clip((KL - target) / target, ±0.2) and β ← β (1 + K_β e), a proportional controller in log space. K_β is
    answers / horizon, as in the paper's code and TRL's `AdaptiveKLController`, so that the rate does not depend on
    the batch size: over `horizon` answers β changes by at most a factor of about e^0.2 = 1.22.

    Args:
        kl: mean of the last rollout, nats per answer. target: likewise.
        answers: number of answers in a rollout.
    """
    error = min(max((kl - target) / target, -0.2), 0.2)
    return kl_coef * (1 + error * answers / horizon)
