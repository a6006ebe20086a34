"""What a computation holds at its fullest, without computing it.

Tensors without data (`FakeTensorMode`) go through the very code that will train, forward and backward; each piece of
memory counts from the operation that makes it to the moment its last tensor goes. So whatever a model or a trainer
keeps for the backward pass is found, and no formula has to know the architecture.
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
    """Bytes at the fullest moment, weights not among them."""

    peak: int  # activations and temporaries, stored gradients not counted
    peak_with_gradients: int  # the same, with those stored by then

    def reached(self, further: "Traced", times: float) -> "Traced":
        """Go on along the line from here through `further`: 0 is here, 1 there."""

        def at(here: int, there: int) -> int:
            return round(here + times * (there - here))

        return Traced(at(self.peak, further.peak), at(self.peak_with_gradients, further.peak_with_gradients))


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that operations under it make, as long as they live."""

    def __init__(self, known: Sequence[Tensor] = (), *, share: float = 1.0) -> None:
        """Begin.

        Args:
            known: tensors whose memory is not counted.
            share: of a mask's entries that are True, where it has no data.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.share = share
        self.sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}
        self.now = self.stored = self.peak = self.peak_with_gradients = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do the operation and count what it made."""
        if func is torch.ops.aten.index.Tensor:
            args = (args[0], [place for index in args[1] for place in self._places(index)], *args[2:])
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return out

    def _places(self, index: Tensor | None) -> list[Tensor | None]:
        """Turn a mask without data into places, as many as `share` says, for no shape follows from the mask itself."""
        if not isinstance(index, FakeTensor) or index.dtype != torch.bool:
            return [index]
        chosen = max(1, round(index.numel() * self.share))
        return [index.new_zeros(chosen, dtype=torch.long) for _ in range(index.dim())]

    def store_gradient(self, parameter: Tensor) -> None:
        """Take a parameter's gradient, just accumulated, from what is alive to what is stored."""
        if parameter.grad is not None:
            key = parameter.grad.untyped_storage()._cdata
            size = self.sizes.get(key, 0)
            self.sizes[key] = 0
            self.now -= size
            self.stored += size
            self.peak_with_gradients = max(self.peak_with_gradients, self.now + self.stored)

    def _count(self, tensor: Tensor) -> None:
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
    """Put tensors without data in the place of all weights and buffers; call it under a `FakeTensorMode`."""
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
    """Let tensors have shapes but no data; `model` comes from the meta device."""
    with FakeTensorMode():
        without_data(model)
        yield


def trace(
    model: nn.Module, step: Callable[[], Any], *, dtype: torch.dtype | None, grad: bool, share: float = 1.0
) -> Traced:
    """Find what `step` holds at its fullest.

    Args:
        model: under `fake_memory`, or a real one: then the step is really done.
        step: a forward pass; where it returns a loss, its backward pass follows.
        dtype: of autocast; None: none.
        grad: whether a graph is kept.
        share: of a mask's entries that are True, the answers' positions say.
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
