"""Agreement with the slow float64 loops of tests/reference, and gradients by gradcheck."""

import math

import numpy as np
import pytest
import torch

from alignment.ops.advantages import advantages_and_returns, gae
from alignment.ops.kl import kl_estimate
from alignment.ops.logits import LogitRule
from alignment.ops.logprobs import chunked_token_logp, linear_token_logp, token_entropy, token_logp
from alignment.ops.losses import aggregate, aggregate_part, importance_ratio, policy_loss, value_loss
from alignment.ops.masking import whiten
from alignment.ops.rewards import token_rewards
from tests.reference import ppo as slow

HOWS = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean")
SEEDS = range(4)


def batch(seed, rows=5, time=7):
    """Random float64 numbers and a mask with padding on the right and one gap."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, time + 1, (rows,), generator=g)
    lengths[0] = time
    mask = torch.arange(time) < lengths.unsqueeze(-1)
    mask[0, 2] = False
    numbers = torch.randn(6, rows, time, generator=g, dtype=torch.float64)
    return mask, *numbers


def close(actual, expected):
    np.testing.assert_allclose(actual.numpy(), np.array(expected), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_gae(seed):
    mask, rewards, values, *_ = batch(seed)
    expected = slow.gae(rewards.tolist(), values.tolist(), mask.tolist(), 0.97, 0.9)
    close(gae(rewards, values, mask, gamma=0.97, lam=0.9), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_lambdas(seed):
    mask, rewards, values, *_ = batch(seed)
    advantages, returns = advantages_and_returns(rewards, values, mask, gamma=1.0, lam=0.8, lam_value=1.0)
    close(advantages, slow.gae(rewards.tolist(), values.tolist(), mask.tolist(), 1.0, 0.8))
    for_value = np.array(slow.gae(rewards.tolist(), values.tolist(), mask.tolist(), 1.0, 1.0))
    close(returns, np.where(mask.numpy(), for_value + values.numpy(), 0.0))


@pytest.mark.parametrize("seed", SEEDS)
def test_gae_with_a_value_after_the_end(seed):
    mask, rewards, values, more, *_ = batch(seed)
    after = more[:, 0]
    advantages, returns = advantages_and_returns(
        rewards, values, mask, gamma=0.97, lam=0.9, lam_value=1.0, last_values=after
    )
    lists = rewards.tolist(), values.tolist(), mask.tolist(), 0.97
    close(advantages, slow.gae(*lists, 0.9, after.tolist()))
    for_value = np.array(slow.gae(*lists, 1.0, after.tolist()))
    close(returns, np.where(mask.numpy(), for_value + values.numpy(), 0.0))


@pytest.mark.parametrize("seed", SEEDS)
def test_whiten(seed):
    mask, x, *_ = batch(seed)
    close(whiten(x, mask), slow.whiten(x.tolist(), mask.tolist()))


@pytest.mark.parametrize("which", ["k1", "k2", "k3"])
def test_kl(which):
    _, logp, ref_logp, *_ = batch(1)
    expected = [slow.kl(a, b, which) for a, b in zip(logp.flatten().tolist(), ref_logp.flatten().tolist(), strict=True)]
    close(kl_estimate(logp, ref_logp, which).flatten(), expected)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("dual", [None, 1.5])
def test_policy_loss(how, dual):
    mask, logp, old_logp, advantages, *_ = batch(2)
    result = policy_loss(logp, old_logp, advantages, cliprange=0.1, cliprange_high=0.3, dual_clip=dual)
    per_token = [
        [slow.policy_token_loss(a, b, c, 0.1, 0.3, dual) for a, b, c in zip(*row, strict=True)]
        for row in zip(logp.tolist(), old_logp.tolist(), advantages.tolist(), strict=True)
    ]
    close(result.loss, per_token)
    assert float(aggregate(result.loss, mask, how)) == pytest.approx(slow.aggregate(per_token, mask.tolist(), how))


def test_the_log_ratio_is_clamped_at_the_number_given():
    _, logp, old_logp, advantages, *_ = batch(2)
    result = policy_loss(
        logp, old_logp, advantages, cliprange=0.9, cliprange_high=9.0, dual_clip=None, log_ratio_clip=0.5
    )
    assert float((logp - old_logp).abs().max()) > 1
    held = [
        [slow.policy_token_loss(max(-0.5, min(0.5, a - b)), 0.0, c, 0.9, 9.0, None) for a, b, c in zip(*r, strict=True)]
        for r in zip(logp.tolist(), old_logp.tolist(), advantages.tolist(), strict=True)
    ]
    close(result.loss, held)


def test_importance_ratio():
    _, logp, engine_logp, *_ = batch(6)
    expected = [[slow.importance_ratio(*pair) for pair in zip(*r, strict=True)]
                for r in zip(logp.tolist(), engine_logp.tolist(), strict=True)]  # fmt: skip
    close(importance_ratio(logp, engine_logp), expected)


@pytest.mark.parametrize("how", HOWS)
def test_value_loss(how):
    mask, values, old_values, returns, *_ = batch(3)
    result = value_loss(values, old_values, returns, cliprange_value=0.2)
    per_token = [
        [slow.value_token_loss(a, b, c, 0.2) for a, b, c in zip(*row, strict=True)]
        for row in zip(values.tolist(), old_values.tolist(), returns.tolist(), strict=True)
    ]
    close(result.loss, per_token)
    assert float(aggregate(result.loss, mask, how)) == pytest.approx(slow.aggregate(per_token, mask.tolist(), how))


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
def test_logp_and_entropy_at_a_temperature(temperature):
    g = torch.Generator().manual_seed(0)
    logits, tokens = torch.randn(6, 11, generator=g, dtype=torch.float64) * 3, torch.arange(6)
    rows = list(zip(logits.tolist(), tokens.tolist(), strict=True))
    expected = [slow.token_logp(row, token, temperature) for row, token in rows]
    close(token_logp(logits, tokens, temperature=temperature), expected)
    close(token_entropy(logits, temperature=temperature), [slow.entropy(row, temperature) for row, _ in rows])


@pytest.mark.parametrize("chunk_size", [1, 4, 9, 100])
def test_chunks_change_neither_value_nor_gradient(chunk_size):
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(11, 5, generator=g, dtype=torch.float64, requires_grad=True)
    hidden = torch.randn(9, 5, generator=g, dtype=torch.float64, requires_grad=True)
    tokens = torch.arange(9)
    whole = token_logp(hidden @ weight.T, tokens, temperature=0.5)
    expected = torch.autograd.grad((whole**2).sum(), (hidden, weight))
    logp, entropy = chunked_token_logp(
        hidden, lambda h: h @ weight.T, tokens, temperature=0.5, chunk_size=chunk_size, with_entropy=True
    )
    torch.testing.assert_close(logp, whole)
    torch.testing.assert_close(entropy, token_entropy(hidden @ weight.T, temperature=0.5).detach())
    for ours, theirs in zip(torch.autograd.grad((logp**2).sum(), (hidden, weight)), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


RULES = [LogitRule(), LogitRule(0.25), LogitRule(cap=2.0), LogitRule(3.0, 1.5)]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("block_size", [1, 4, 11, 100])
def test_a_frozen_heads_logp_is_the_plain_one_in_value_and_gradient(block_size, rule):
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(11, 5, generator=g, dtype=torch.float64)
    hidden = torch.randn(9, 5, generator=g, dtype=torch.float64, requires_grad=True)
    tokens = torch.arange(9)
    options = {"temperature": 0.5, "block_size": block_size, "rule": rule}
    logp, entropy = linear_token_logp(hidden, weight, tokens, with_entropy=True, **options)
    raw = hidden @ weight.T
    logits = raw * rule.scale if rule.cap is None else rule.cap * (raw * rule.scale / rule.cap).tanh()
    plain = token_logp(logits, tokens, temperature=0.5)
    torch.testing.assert_close(logp, plain)
    torch.testing.assert_close(entropy, token_entropy(logits, temperature=0.5).detach())
    ours, theirs = (torch.autograd.grad((found**2).sum(), hidden)[0] for found in (logp, plain))
    torch.testing.assert_close(ours, theirs)
    assert torch.autograd.gradcheck(lambda x: linear_token_logp(x, weight, tokens, **options)[0], hidden)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_frozen_heads_logp_has_the_same_bits_with_and_without_gradient(dtype):
    g = torch.Generator().manual_seed(0)
    weight, hidden = (torch.randn(n, 16, generator=g).to(dtype) for n in (50, 9))
    options = {"temperature": 0.7, "block_size": 20}
    trained, _ = linear_token_logp(hidden.requires_grad_(True), weight, torch.arange(9), **options)
    with torch.no_grad():
        scored, entropy = linear_token_logp(hidden, weight, torch.arange(9), with_entropy=True, **options)
    assert torch.equal(trained, scored)
    assert not entropy.requires_grad
    assert trained.dtype == torch.float32
    exact = hidden.double() @ weight.double().T  # not rounded to bfloat16 before the sum of exponentials
    plain = token_logp(exact, torch.arange(9), temperature=0.7)
    torch.testing.assert_close(scored.double(), plain, rtol=1e-5, atol=1e-5)
    plain = token_logp((hidden.float() @ weight.float().T), torch.arange(9), temperature=0.7)
    ours, theirs = (torch.autograd.grad(found.sum(), hidden)[0].float() for found in (trained, plain))
    torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=4e-2 if dtype == torch.bfloat16 else 1e-5)  # 1/128 of 4


@pytest.mark.parametrize("block_size", [16, 1000])
@pytest.mark.parametrize("odds", [0.1, 1e-2, 1e-4])
def test_half_precision_keeps_the_gradient_of_a_confident_token(odds, block_size):
    """Its gradient is the small pull of what else was likely, which rounding the head's own pull would drown."""
    g = torch.Generator().manual_seed(0)
    weight = (0.05 * torch.randn(1000, 64, generator=g)).bfloat16()
    tokens, rivals = torch.arange(32), torch.arange(500, 532)
    pair = torch.stack([weight[tokens], weight[rivals]], 1).double()
    logits = torch.tensor([40.0, 40.0 + math.log(odds)], dtype=torch.float64).expand(32, 2).unsqueeze(-1)
    hidden = (torch.linalg.pinv(pair) @ logits).squeeze(-1).bfloat16()

    def slope(hidden, logp):
        hidden = hidden.clone().requires_grad_(True)
        return torch.autograd.grad(logp(hidden).sum(), hidden)[0].double()

    options = {"temperature": 1.0, "block_size": block_size}
    exact = slope(hidden.double(), lambda h: token_logp(h @ weight.double().T, tokens, temperature=1.0))
    plain = slope(hidden, lambda h: token_logp(h @ weight.T, tokens, temperature=1.0))
    ours = slope(hidden, lambda h: linear_token_logp(h, weight, tokens, **options)[0])
    assert float((ours - exact).norm()) < 1.3 * float((plain - exact).norm())


def test_token_rewards():
    mask, kls, *_ = batch(0)
    scores = torch.tensor([0.5, 0.0, -1.0, 2.0, 0.25], dtype=torch.float64)
    expected = slow.token_rewards(scores.tolist(), kls.tolist(), mask.tolist(), 0.05)
    close(token_rewards(scores, kls, mask, kl_coef=0.05), expected)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("split", [[5], [1, 4], [2, 2, 1], [1, 1, 1, 1, 1]])
def test_microbatch_shares_sum_to_the_whole(how, split):
    mask, loss, *_ = batch(0)
    whole = aggregate(loss, mask, how)
    shares = [
        aggregate_part(part, m, how, tokens=mask.sum(), sequences=torch.tensor(len(mask)))
        for part, m in zip(loss.split(split), mask.split(split), strict=True)
    ]
    assert float(sum(shares)) == pytest.approx(float(whole), rel=1e-12)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("dual", [None, 1.1])
def test_gradient_of_the_policy_loss(how, dual):
    mask, logp, old_logp, advantages, *_ = batch(4, rows=3, time=4)
    logp.requires_grad_(True)

    def policy(logp):
        result = policy_loss(logp, old_logp, advantages, cliprange=0.2, cliprange_high=0.28, dual_clip=dual)
        return aggregate(result.loss, mask, how)

    at = policy_loss(logp, old_logp, advantages, cliprange=0.2, cliprange_high=0.28, dual_clip=dual)
    assert bool(at.clipped[mask].any())  # every branch is among the tokens
    assert not bool(at.clipped[mask].all())
    assert bool(at.dual_clipped[mask].any()) == (dual is not None)
    assert torch.autograd.gradcheck(policy, logp)


@pytest.mark.parametrize("how", HOWS)
def test_gradient_of_the_value_loss(how):
    mask, values, old_values, returns, *_ = batch(4, rows=3, time=4)
    values.requires_grad_(True)

    def value(values):
        return aggregate(value_loss(values, old_values, returns, cliprange_value=0.2).loss, mask, how)

    at = value_loss(values, old_values, returns, cliprange_value=0.2)
    assert 0 < int(at.clipped[mask].sum()) < int(mask.sum())
    assert torch.autograd.gradcheck(value, values)


@pytest.mark.parametrize("how", HOWS)
def test_gradient_of_the_aggregation_and_of_its_parts(how):
    mask, loss, *_ = batch(4, rows=3, time=4)
    loss.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: aggregate(x, mask, how), loss)
    whole = {"tokens": torch.tensor(20.0), "sequences": torch.tensor(5.0)}
    assert torch.autograd.gradcheck(lambda x: aggregate_part(x, mask, how, **whole), loss)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk_size", [2, 9])
def test_gradient_of_chunked_logp(chunk_size, temperature):
    """Chunks are computed again in the backward pass; the entropy beside them carries no gradient."""
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 3, generator=g, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 3, generator=g, dtype=torch.float64, requires_grad=True)
    tokens = torch.tensor([0, 6, 3, 3, 1])

    def logp(hidden, weight):
        found, entropy = chunked_token_logp(
            hidden, lambda h: h @ weight.T, tokens, temperature=temperature, chunk_size=chunk_size, with_entropy=True
        )
        assert not entropy.requires_grad
        return found

    assert torch.autograd.gradcheck(logp, (hidden, weight))


@pytest.mark.parametrize("which", ["k1", "k2", "k3"])
@pytest.mark.parametrize("how", HOWS)
def test_gradient_of_the_kl_in_the_loss(which, how):
    mask, logp, ref_logp, *_ = batch(5, rows=3, time=4)
    logp.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: aggregate(kl_estimate(x, ref_logp, which), mask, how), logp)


def test_gradient_of_logp():
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    tokens = torch.tensor([0, 4, 2])
    assert torch.autograd.gradcheck(lambda x: token_logp(x, tokens, temperature=0.7), logits)
