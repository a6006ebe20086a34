"""A trace for a GPU has no temporaries that output layers have on a CPU alone."""

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from trl.kernels.chunked_logprob import ChunkedLogProbFunction

from alignment.ops.logits import wide_linear
from alignment.planner.gpu_kernels import gpu_kernels
from alignment.planner.tracing import trace

TOKENS, WIDTH, VOCABULARY, CHUNK = 512, 64, 8192, 4096
BFLOAT16, FLOAT32 = 2, 4


def fused_head(hidden: Tensor, weight: Tensor) -> Tensor:
    """TRL's fused LM head."""
    tokens = torch.zeros(TOKENS, dtype=torch.long)
    return ChunkedLogProbFunction.apply(hidden, weight, None, tokens, 1.0, CHUNK, None, 1.0, ())[0].sum()


def own_head(hidden: Tensor, weight: Tensor) -> Tensor:
    """An output layer of this package."""
    return wide_linear(hidden, weight, None).sum()


def peak(head, *, gpu: bool) -> int:
    with FakeTensorMode():
        hidden = torch.empty(TOKENS, WIDTH, dtype=torch.bfloat16, requires_grad=True)
        weight = torch.empty(VOCABULARY, WIDTH, dtype=torch.bfloat16)
        with gpu_kernels(gpu=gpu):
            return trace(torch.nn.Module(), lambda: head(hidden, weight), dtype=None, grad=True).peak


@pytest.mark.parametrize(("head", "logits"), [(fused_head, CHUNK * BFLOAT16), (own_head, VOCABULARY * FLOAT32)])
def test_what_only_a_cpu_needs_is_left_out(head, logits):
    on_gpu, on_cpu = peak(head, gpu=True), peak(head, gpu=False)
    assert on_gpu < on_cpu
    assert TOKENS * logits <= on_gpu
    assert on_gpu < 1.5 * TOKENS * logits + 16 * TOKENS * WIDTH * FLOAT32
