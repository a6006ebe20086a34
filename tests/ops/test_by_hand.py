"""Values worked out by hand, properties, and what the errors say."""

import math

import pytest
import torch

from alignment.errors import ShapeError
from alignment.ops.advantages import advantages_and_returns, gae
from alignment.ops.kl import adapted_kl_coef, kl_estimate
from alignment.ops.logprobs import token_entropy, token_logp
from alignment.ops.losses import aggregate, importance_ratio, policy_loss, value_loss
from alignment.ops.masking import masked_mean, masked_sum, masked_var, whiten
from alignment.ops.rewards import explained_variance, last_valid, token_rewards

CLIPS = {"cliprange": 0.2, "cliprange_high": 0.28, "dual_clip": 3.0}


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def test_masked_statistics():
    x, mask = row(1.0, 2.0, 4.0, math.nan), torch.tensor([[True, True, True, False]])
    assert float(masked_sum(x, mask)) == 7.0
    assert float(masked_mean(x, mask)) == pytest.approx(7 / 3)
    # ((1 - 7/3)² + (2 - 7/3)² + (4 - 7/3)²) / 2 = (16 + 1 + 25) / 9 / 2 = 42 / 18
    assert float(masked_var(x, mask)) == pytest.approx(42 / 18)


def test_whitened_tokens_have_mean_zero_and_variance_one_whatever_the_padding_holds():
    x, mask = torch.randn(4, 6, dtype=torch.float64), torch.rand(4, 6) < 0.7
    x[~mask] = math.inf
    white = whiten(x, mask)
    assert float(white[mask].mean()) == pytest.approx(0, abs=1e-12)
    assert float(white[mask].var()) == pytest.approx(1, abs=1e-6)
    assert not white[~mask].any()


@pytest.mark.parametrize("x", [row(3.0, 0.0), row(2.0, 2.0)])
def test_whitening_what_has_no_spread_gives_zero(x):
    mask = x != 0
    assert float(whiten(x, mask).abs().max()) == 0.0


def test_gae():
    # γ 0.9, λ 0.5, backwards: δ2 = 1 - 0.3 = 0.7, A2 = 0.7;
    # δ1 = 0 + 0.9·0.3 - 0.2 = 0.07, A1 = 0.07 + 0.45·0.7 = 0.385;
    # δ0 = 0 + 0.9·0.2 - 0.1 = 0.08, A0 = 0.08 + 0.45·0.385 = 0.25325
    rewards, values = row(0.0, 0.0, 1.0), row(0.1, 0.2, 0.3)
    advantages = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), gamma=0.9, lam=0.5)
    torch.testing.assert_close(advantages, row(0.25325, 0.385, 0.7))


def test_gae_of_an_answer_that_was_cut_off_where_the_value_was_two():
    # γ 0.9, λ 0.5: δ1 = 0 + 0.9·2 - 0.2 = 1.6; δ0 = 0 + 0.9·0.2 - 0.1 = 0.08, A0 = 0.08 + 0.45·1.6 = 0.8;
    # the padding between the last token and the end of the row is passed over
    rewards, values, mask = row(0.0, 0.0, 7.0), row(0.1, 0.2, 7.0), torch.tensor([[True, True, False]])
    advantages = gae(rewards, values, mask, gamma=0.9, lam=0.5, last_values=torch.tensor([2.0], dtype=torch.float64))
    torch.testing.assert_close(advantages, row(0.8, 1.6, 0.0))


def test_returns_at_lambda_one_are_the_rewards_to_come():
    rewards, values = row(0.5, -0.25, 1.0, 9.0), row(3.0, -2.0, 7.0, 9.0)
    mask = torch.tensor([[True, True, True, False]])
    advantages, returns = advantages_and_returns(rewards, values, mask, gamma=1.0, lam=0.0, lam_value=1.0)
    torch.testing.assert_close(returns, row(1.25, 0.75, 1.0, 0.0))
    # λ 0: one step. 0.5 - 2 - 3 = -4.5; -0.25 + 7 + 2 = 8.75; 1 - 7 = -6
    torch.testing.assert_close(advantages, row(-4.5, 8.75, -6.0, 0.0))


def test_more_padding_changes_no_advantage():
    rewards, values = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    mask = torch.ones(2, 3, dtype=torch.bool)
    junk = torch.full((2, 2), 1e6, dtype=torch.float64)
    short = gae(rewards, values, mask, gamma=1.0, lam=0.95)
    long = gae(
        torch.cat([rewards, junk], 1), torch.cat([values, junk], 1), torch.nn.functional.pad(mask, (0, 2)),
        gamma=1.0, lam=0.95,
    )  # fmt: skip
    torch.testing.assert_close(long[:, :3], short)
    assert not long[:, 3:].any()


def test_the_score_lands_on_the_last_answer_token_and_a_reward_of_zero_is_a_reward():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    kl = torch.full((2, 3), 0.5, dtype=torch.float64)
    rewards = token_rewards(torch.tensor([2.0, 0.0]), kl, mask, kl_coef=0.1)
    torch.testing.assert_close(rewards, torch.tensor([[-0.05, 1.95, 0.0], [-0.05, -0.05, -0.05]], dtype=torch.float64))
    assert last_valid(mask).tolist() == [1, 2]


def test_an_answer_without_tokens_is_refused():
    with pytest.raises(ShapeError, match="at least one token"):
        last_valid(torch.tensor([[True], [False]]))


def test_kl_estimators():
    # d = ln 2: k1 = 0.6931, k2 = 0.2402, k3 = 1/2 - 1 + 0.6931 = 0.1931
    logp, ref_logp = row(math.log(0.5)), row(math.log(0.25))
    assert float(kl_estimate(logp, ref_logp, "k1")) == pytest.approx(math.log(2))
    assert float(kl_estimate(logp, ref_logp, "k2")) == pytest.approx(math.log(2) ** 2 / 2)
    assert float(kl_estimate(logp, ref_logp, "k3")) == pytest.approx(math.log(2) - 0.5)
    with pytest.raises(ValueError, match="kl_estimator 'k4' is unknown; use k1, k2 or k3"):
        kl_estimate(logp, ref_logp, "k4")


def test_gradients_of_the_kl_in_the_loss():
    """Over a vocabulary of six, each token weighed by its probability, so that the mean is exact."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(6, generator=g, dtype=torch.float64, requires_grad=True)
    ref_logp = torch.randn(6, generator=g, dtype=torch.float64).log_softmax(-1)
    logp = logits.log_softmax(-1)
    of_the_kl = torch.autograd.grad((logp.exp() * (logp - ref_logp)).sum(), logits, retain_graph=True)[0]
    of_the_other = torch.autograd.grad((ref_logp.exp() * (ref_logp - logp)).sum(), logits, retain_graph=True)[0]
    found = {
        which: torch.autograd.grad(
            (logp.detach().exp() * kl_estimate(logp, ref_logp, which)).sum(), logits, retain_graph=True
        )[0]
        for which in ("k1", "k2", "k3")
    }
    assert float(of_the_kl.abs().max()) > 0.1
    torch.testing.assert_close(found["k1"], torch.zeros(6, dtype=torch.float64))
    torch.testing.assert_close(found["k2"], of_the_kl)
    torch.testing.assert_close(found["k3"], of_the_other)


def test_the_adaptive_coefficient():
    held = {"target": 6.0, "horizon": 10_000, "answers": 500}
    # e = (6.6 - 6) / 6 = 0.1; 0.2 · (1 + 0.1 · 500 / 10000) = 0.2 · 1.005
    assert adapted_kl_coef(0.2, 6.6, **held) == pytest.approx(0.201)
    # e = 2 and -1, cut at ±0.2: 0.2 · (1 ± 0.01)
    assert adapted_kl_coef(0.2, 18.0, **held) == pytest.approx(0.202)
    assert adapted_kl_coef(0.2, 0.0, **held) == pytest.approx(0.198)
    assert adapted_kl_coef(0.2, 6.0, **held) == 0.2


def test_importance_ratio():
    # 0.5 / 0.25 = 2; 0.2 / 0.4 = 0.5; e^50 is held at e^20
    logp, engine_logp = row(math.log(0.5), math.log(0.2), -1.0), row(math.log(0.25), math.log(0.4), -51.0)
    torch.testing.assert_close(importance_ratio(logp, engine_logp), row(2.0, 0.5, math.exp(20)))


def test_k1_and_k3_average_to_the_exact_divergence():
    p, q = torch.tensor([0.7, 0.2, 0.1]).double(), torch.tensor([0.3, 0.4, 0.3]).double()
    exact = float((p * (p / q).log()).sum())
    for which in ("k1", "k3"):  # the expectation over all three tokens, not a sample
        assert float((p * kl_estimate(p.log(), q.log(), which)).sum()) == pytest.approx(exact)


def test_policy_loss_by_hand():
    ratios = torch.tensor([[1.5, 0.5, 1.5, 0.5, 4.0]], dtype=torch.float64)
    advantages = row(1.0, 1.0, -1.0, -1.0, -1.0)
    result = policy_loss(ratios.log(), torch.zeros_like(ratios), advantages, **CLIPS)
    # A > 0: min(1.5, 1.28), min(0.5, 0.8). A < 0: -1.5, -max(0.5, 0.8); 4.0 is held at the dual clip, 3.
    torch.testing.assert_close(result.loss, row(-1.28, -0.5, 1.5, 0.8, 3.0))
    assert result.clipped.tolist() == [[True, False, False, True, False]]
    assert result.dual_clipped.tolist() == [[False, False, False, False, True]]
    torch.testing.assert_close(result.ratio, ratios)


def test_at_ratio_one_the_gradient_is_the_policy_gradient():
    logp = row(-1.0, -2.0).requires_grad_(True)
    advantages = row(0.5, -3.0)
    policy_loss(logp, logp.detach(), advantages, **CLIPS).loss.sum().backward()
    torch.testing.assert_close(logp.grad, -advantages)


def test_a_ratio_out_of_all_bounds_stays_finite():
    result = policy_loss(row(0.0), row(-1000.0), row(-1.0), cliprange=0.2, cliprange_high=0.2, dual_clip=None)
    assert float(result.loss) == pytest.approx(math.exp(20))


def test_value_loss_by_hand():
    # old 0, clip 0.2. V 1, R 2: plain 1, held at 0.2: 3.24, the larger. V -1, R 2: plain 9, held -0.2: 4.84.
    result = value_loss(row(1.0, -1.0), row(0.0, 0.0), row(2.0, 2.0), cliprange_value=0.2)
    torch.testing.assert_close(result.loss, row(1.62, 4.5))
    assert result.clipped.tolist() == [[True, False]]


def test_aggregations_by_hand():
    loss, mask = (
        torch.tensor([[1.0, 2.0, 9.0], [3.0, 9.0, 9.0]]),
        torch.tensor([[True, True, False], [True, False, False]]),
    )
    assert float(aggregate(loss, mask, "token-mean")) == 2.0  # (1 + 2 + 3) / 3
    assert float(aggregate(loss, mask, "seq-mean-token-sum")) == 3.0  # (3 + 3) / 2
    assert float(aggregate(loss, mask, "seq-mean-token-mean")) == 2.25  # (1.5 + 3) / 2
    with pytest.raises(ValueError, match="aggregation 'mean' is unknown; use token-mean"):
        aggregate(loss, mask, "mean")


def test_logp_is_that_of_the_sampling_temperature():
    logits = torch.tensor([[math.log(1.0), math.log(4.0)]])
    # temperature 2 takes square roots: 1 and 2 of 3
    assert float(token_logp(logits, torch.tensor([1]), temperature=2.0).exp()) == pytest.approx(2 / 3)
    assert float(token_logp(logits, torch.tensor([1]), temperature=1.0).exp()) == pytest.approx(4 / 5)
    assert float(token_entropy(torch.zeros(1, 8), temperature=0.3)) == pytest.approx(math.log(8))


def test_half_precision_logits_are_computed_in_float32():
    logits = torch.randn(4, 1000).bfloat16()
    logp = token_logp(logits, torch.arange(4), temperature=1.0)
    assert logp.dtype == torch.float32
    torch.testing.assert_close(logp, token_logp(logits.float(), torch.arange(4), temperature=1.0))


def test_explained_variance():
    # returns 1, 3 have variance 2; values 1, 2 leave 0, 1, variance 1/2
    assert explained_variance(torch.tensor(0.5), torch.tensor(2.0)) == 0.75
    assert explained_variance(torch.tensor(3.0), torch.tensor(2.0)) == -0.5
    assert explained_variance(torch.tensor(3.0), torch.tensor(0.0)) == 0.0


def test_shapes_that_differ_are_named():
    a, b = torch.zeros(2, 3), torch.zeros(2, 4)
    with pytest.raises(ShapeError, match=r"rewards \(2, 3\), values \(2, 4\), mask \(2, 3\)"):
        gae(a, b, a.bool(), gamma=1.0, lam=1.0)
    with pytest.raises(ShapeError, match=r"logp \(2, 3\), old_logp \(2, 4\)"):
        policy_loss(a, b, a, **CLIPS)
    with pytest.raises(ShapeError, match=r"logits \(2, 3\) and tokens \(3,\)"):
        token_logp(a, torch.zeros(3, dtype=torch.long), temperature=1.0)
    with pytest.raises(ShapeError, match="one number per row"):
        token_rewards(torch.zeros(3), a, a.bool(), kl_coef=0.1)
