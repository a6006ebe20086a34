"""The fused LoRA layer computes what PEFT's own layer computes, forward and backward."""

import copy
import types

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import nn

from alignment.policy import lora
from alignment.policy.lora import lean_forward

SHAPES = [(3, 5, 12), (7, 12)]  # (batch, time, width) and (tokens, width)


class Two(nn.Module):
    """Two linear layers, so that a gradient passes through the second into the first."""

    def __init__(self, bias):
        super().__init__()
        self.first, self.second = nn.Linear(12, 16, bias=bias), nn.Linear(16, 9, bias=bias)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def pair(bias, r, alpha, dtype, **options):
    """PEFT's model, and the same with the fused layers."""
    torch.manual_seed(0)
    config = LoraConfig(r=r, lora_alpha=alpha, lora_dropout=0.0, target_modules=["first", "second"], **options)
    theirs = get_peft_model(Two(bias), config).to(dtype)
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.3)
    ours = copy.deepcopy(theirs)
    for module in ours.modules():
        if isinstance(module, Linear):
            lean_forward(module)
    return theirs, ours


def run(model, x, upstream):
    """Output, and the gradients of the input and of all trained parameters."""
    x = x.clone().requires_grad_(True)
    out = model(x)
    (out * upstream).sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    return out.detach(), {"input": x.grad, **grads}


@pytest.fixture
def fused(monkeypatch):
    """Counts the calls of the fused operation: a comparison of PEFT with itself would prove nothing."""
    calls = []
    apply = lora._LoraLinear.apply
    monkeypatch.setattr(lora, "_LoraLinear", types.SimpleNamespace(apply=lambda *a: (calls.append(a), apply(*a))[1]))
    return calls


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("r", "alpha", "options"), [(4, 8, {}), (1, 3, {}), (8, 16, {"use_rslora": True})], ids=str)
def test_forward_and_backward_equal_pefts_in_float64(fused, shape, bias, r, alpha, options):
    theirs, ours = pair(bias, r, alpha, torch.float64, **options)
    g = torch.Generator().manual_seed(1)
    x = torch.randn(*shape, generator=g, dtype=torch.float64)
    upstream = torch.randn(*shape[:-1], 9, generator=g, dtype=torch.float64)
    expected, expected_grads = run(theirs, x, upstream)
    assert not fused
    out, grads = run(ours, x, upstream)
    assert len(fused) == 2
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    assert grads.keys() == expected_grads.keys()
    assert len(grads) == 5  # the input, and A and B of two layers
    for name, gradient in grads.items():
        assert float(expected_grads[name].abs().max()) > 1e-3, name
        torch.testing.assert_close(gradient, expected_grads[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_in_bfloat16_it_is_as_near_to_the_exact_result_as_pefts(fused, bias):
    """Both round at other places, so each is compared with float64: the fused one errs by at most twice as much."""
    theirs, ours = pair(bias, 4, 8, torch.bfloat16)
    exact = copy.deepcopy(theirs).double()
    g = torch.Generator().manual_seed(1)
    x = torch.randn(64, 12, generator=g).bfloat16()
    upstream = torch.randn(64, 9, generator=g).bfloat16()
    out, grads = run(ours, x, upstream)
    assert len(fused) == 2
    assert out.dtype == torch.bfloat16
    their_out, their_grads = run(theirs, x, upstream)
    exact_out, exact_grads = run(exact, x.double(), upstream.double())
    pairs = {"out": (out, their_out, exact_out)}
    pairs |= {name: (grads[name], their_grads[name], exact_grads[name]) for name in grads}
    for name, (mine, other, true) in pairs.items():
        assert mine.dtype == other.dtype, name
        error, their_error = (float((each.double() - true).norm() / true.norm()) for each in (mine, other))
        assert error < max(2 * their_error, 2**-8), (name, error, their_error)
        assert error < 0.02, (name, error)


def test_gradients_agree_with_finite_differences():
    _, ours = pair(True, 2, 4, torch.float64)
    layer = next(module for module in ours.modules() if isinstance(module, Linear))
    x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    base = layer.base_layer

    def fused(x, down, up):
        return lora._LoraLinear.apply(x, base.weight, base.bias, down, up, 2.0)

    assert torch.autograd.gradcheck(fused, (x, down, up))


def test_where_it_cannot_fuse_pefts_own_layer_runs(fused):
    """DoRA, an adapter's bias, dropout in training, a trained base weight, autocast, and no adapter."""
    x = torch.randn(4, 12)
    for options in ({"use_dora": True}, {"lora_bias": True}):
        theirs, ours = pair(True, 4, 8, torch.float32, **options)
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    theirs, ours = pair(True, 4, 8, torch.float32)
    for model in (theirs, ours):
        model.base_model.model.first.base_layer.weight.requires_grad_(True)
        model.base_model.model.second.base_layer.weight.requires_grad_(True)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    theirs, ours = pair(True, 4, 8, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    with theirs.disable_adapter(), ours.disable_adapter():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    assert not fused
