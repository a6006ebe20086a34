"""Child-tuning F: the moments of its mask, and gradients that it changes."""

import pytest
import torch
from torch import nn

from alignment.policy.methods.child_tuning import bernoulli, mask_gradients


@pytest.mark.parametrize("p", [0.1, 0.3, 1.0])
def test_the_mask_has_mean_1_and_variance_1_minus_p_over_p(p):
    n = 1_000_000
    mask = bernoulli(torch.zeros(n), p=p, key="a").double()
    assert sorted(mask.unique().tolist()) == ([1.0] if p == 1 else [0.0, pytest.approx(1 / p)])
    variance = (1 - p) / p
    # five standard errors of a mean: 5 * sqrt(variance / n)
    assert mask.mean().item() == pytest.approx(1, abs=5 * (variance / n) ** 0.5 + 1e-7)
    assert mask.var().item() == pytest.approx(variance, rel=0.02, abs=1e-9)


def gradients(seed, step):
    model = nn.Linear(50, 40)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    mask_gradients(model.named_parameters(), p=0.25, seed=seed, step=step)
    return model.weight.grad, model.bias.grad


def test_gradients_are_0_or_scaled_by_1_over_p():
    weight, bias = gradients(0, 0)
    assert set(weight.unique().tolist()) == {0.0, 8.0}  # 2 / 0.25
    assert set(bias.unique().tolist()) <= {0.0, 8.0}


def test_masks_differ_by_step_seed_and_parameter_and_repeat():
    first, again = gradients(0, 1)[0], gradients(0, 1)[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, gradients(0, 2)[0])
    assert not torch.equal(first, gradients(1, 1)[0])
    square = torch.zeros(30, 30)
    assert not torch.equal(bernoulli(square, p=0.5, key="a"), bernoulli(square, p=0.5, key="b"))


def test_a_parameter_without_a_gradient_is_left_alone():
    model = nn.Linear(3, 3)
    mask_gradients(model.named_parameters(), p=0.5, seed=0, step=0)
    assert model.weight.grad is None
