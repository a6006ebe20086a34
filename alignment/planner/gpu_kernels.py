"""What a trace on a CPU must leave out to be that of a GPU: temporaries that a GPU's kernels do not have."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from trl.kernels import chunked_logprob

from alignment.ops import logits, logprobs


@contextmanager
def gpu_kernels(*, gpu: bool) -> Iterator[None]:
    """Trace output layers as they run on a GPU if `gpu` is set.

    There cuBLAS multiplies half precision to float32, and adds products to a float32 sum; a Triton kernel of TRL folds
    a tile of logits in place. On other devices torch does each with float32 copies.
    """
    with ExitStack() as stack:
        if gpu:
            for name, kernel in (("_forward_tile", _in_place), ("_backward_tile", _in_place), ("_addmm_fp32", _add)):
                stack.enter_context(patch.object(chunked_logprob, name, kernel))
            for module in (logits, logprobs):
                stack.enter_context(patch.object(module, "wide_product", _product))
        yield


def _in_place(*_: Any, **__: Any) -> None:
    """Fold a tile without a temporary."""


def _add(total: Tensor, *_: Tensor) -> None:
    """Add a product to a sum without a temporary."""
    total.zero_()


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply x, (n, width), by the transposed weight, (m, width), without a float32 copy of either."""
    return x.new_empty(len(x), len(weight), dtype=torch.promote_types(x.dtype, torch.float32))
