"""The peak memory of a computation, without computing it.

Tensors without data (`FakeTensorMode`) run through the code of training, forward and backward. Each storage counts from
the operation that creates it until its last tensor is freed. This includes everything that a model or a trainer keeps
for the backward pass, and needs no formula per architecture.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


@dataclass(frozen=True, slots=True)
class Traced:
    """Peak bytes, without the weights."""

    peak: int  # of activations and temporaries, without stored gradients
    peak_with_gradients: int  # the same, with the gradients stored at that time

    def reached(self, further: "Traced", times: float) -> "Traced":
        """Extrapolate linearly from this trace through `further`: `times` 0 is this one, 1 the other."""

        def at(here: int, there: int) -> int:
            return round(here + times * (there - here))

        return Traced(at(self.peak, further.peak), at(self.peak_with_gradients, further.peak_with_gradients))


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that operations create, while they are alive."""

    def __init__(self, known: Sequence[Tensor] = (), *, share: float = 1.0) -> None:
        """Begin.

        Args:
            known: tensors whose memory is not counted.
            share: of the entries of a mask without data that count as True.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.share = share
        self.sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}
        self.now = self.stored = self.peak = self.peak_with_gradients = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count its outputs."""
        if func is torch.ops.aten.index.Tensor:
            args = (args[0], [place for index in args[1] for place in self._places(index)], *args[2:])
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return out

    def _places(self, index: Tensor | None) -> list[Tensor | None]:
        """Replace a mask without data, whose True entries cannot be counted, by a `share` of its positions."""
        if not isinstance(index, FakeTensor) or index.dtype != torch.bool:
            return [index]
        chosen = max(1, round(index.numel() * self.share))
        return [index.new_zeros(chosen, dtype=torch.long) for _ in range(index.dim())]

    def store_gradient(self, parameter: Tensor) -> None:
        """Count a parameter's accumulated gradient as stored, no longer as alive."""
        if parameter.grad is not None:
            key = parameter.grad.untyped_storage()._cdata
            size = self.sizes.get(key, 0)
            self.sizes[key] = 0
            self.now -= size
            self.stored += size
            self.peak_with_gradients = max(self.peak_with_gradients, self.now + self.stored)

    def _count(self, tensor: Tensor) -> None:
        if tensor.layout == torch.sparse_coo:
            for part in (tensor._indices(), tensor._values()):
                self._count(part)
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.sizes:
            return
        self.sizes[key] = storage.nbytes()
        self.now += self.sizes[key]
        self.peak = max(self.peak, self.now)
        self.peak_with_gradients = max(self.peak_with_gradients, self.now + self.stored)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)


def without_data(model: nn.Module) -> None:
    """Replace all weights and buffers by tensors without data. Call it under a `FakeTensorMode`."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, old in store.items():
                if old is None:
                    continue
                if id(old) not in made:
                    new = torch.empty(old.shape, dtype=old.dtype, device="cpu")
                    made[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
                store[name] = made[id(old)]  # type: ignore[assignment]


@contextlib.contextmanager
def fake_memory(model: nn.Module) -> Iterator[None]:
    """Create tensors without data inside this context. `model` is on the meta device."""
    with FakeTensorMode():
        without_data(model)
        yield


def trace(
    model: nn.Module, step: Callable[[], Any], *, dtype: torch.dtype | None, grad: bool, share: float = 1.0
) -> Traced:
    """Return the peak memory of `step`.

    Args:
        model: under `fake_memory`, or a real one, which then runs the step.
        step: a forward pass that returns the loss.
        dtype: of autocast; None: no autocast.
        grad: whether to run the backward pass too.
        share: of the entries of a mask without data that count as True, such as the positions of answers.
    """
    for parameter in model.parameters():
        parameter.grad = None
    live = LiveBytes([*model.parameters(), *model.buffers()], share=share)
    hooks = [
        parameter.register_post_accumulate_grad_hook(live.store_gradient)  # type: ignore[no-untyped-call]
        for parameter in model.parameters()
        if parameter.requires_grad and grad
    ]
    try:
        with live, torch.set_grad_enabled(grad):
            with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
                loss = step()
            if grad:
                loss.backward()
            del loss
    finally:
        for hook in hooks:
            hook.remove()
    return Traced(live.peak, live.peak_with_gradients)
