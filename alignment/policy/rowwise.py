"""Layers that add another LoRA adapter to each row of a batch: stacked A and B, one `bmm` each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alignment.errors import ModelError


@dataclass(frozen=True, slots=True)
class Pair:
    """One module's LoRA matrices, ready to multiply with: down (in, r), up (r, out) with the scale in it."""

    down: Tensor
    up: Tensor


@dataclass(frozen=True, slots=True)
class Plan:
    """Which rows of a batch have which adapter.

    The rows of each adapter form a group; groups are padded to one size, so that a stack of matrices meets a stack of
    inputs. `rows` and `places` are None if the batch is in that order already.
    """

    names: tuple[str | None, ...]  # of the groups; None: the base alone
    size: int | None  # rows of each group; None: all rows are one group, however many
    batch: int | None = None
    rows: Tensor | None = None  # (groups * size,): the row at each place; padding repeats the group's first
    places: Tensor | None = None  # (batch,): the place of each row
    members: tuple[Tensor, ...] = ()  # rows of each group

    @classmethod
    def of(cls, names: Sequence[str | None], device: torch.device) -> "Plan":
        """Group the rows of a batch by their adapters' names."""
        groups: dict[str | None, list[int]] = {}
        for row, name in enumerate(names):
            groups.setdefault(name, []).append(row)
        size = max(map(len, groups.values()))
        rows = [row for members in groups.values() for row in members + members[:1] * (size - len(members))]
        order, whole = tuple(groups), tuple(torch.tensor(members, device=device) for members in groups.values())
        if rows == list(range(len(names))):
            return cls(order, size, len(names), members=whole)
        places = [0] * len(names)
        for group, members in enumerate(groups.values()):
            for place, row in enumerate(members):
                places[row] = group * size + place
        return cls(
            order,
            size,
            len(names),
            torch.tensor(rows, device=device),
            torch.tensor(places, device=device),
            whole,
        )

    def add(self, output: Tensor, x: Tensor, stack: Pair) -> Tensor:
        """Add x·down·up of each row's adapter to `output`.

        Args:
            output: (batch, time, out). x: (batch, time, in). stack: matrices of all groups, (groups, in, r) and so on.
        """
        inputs = x.to(stack.down.dtype)
        if self.rows is not None:
            inputs = inputs[self.rows]
        groups = len(self.names)
        low = torch.bmm(inputs.reshape(groups, -1, x.shape[-1]), stack.down)
        if self.places is None and output.dtype == low.dtype and output.is_contiguous():
            output.view(groups, -1, output.shape[-1]).baddbmm_(low, stack.up)
            return output
        change = torch.bmm(low, stack.up).view(-1, x.shape[1], output.shape[-1])
        if self.places is not None:
            change = change[self.places]
        return (output + change).to(output.dtype)


def stacked(pairs: Sequence[Pair | None]) -> Pair | None:
    """Stack matrices of any ranks, padded with zeros to the largest; None for an adapter that leaves the module."""
    present = [pair for pair in pairs if pair is not None]
    if not present:
        return None
    first = present[0]
    rank = max(pair.down.shape[1] for pair in present)
    down = first.down.new_zeros(len(pairs), first.down.shape[0], rank)
    up = first.up.new_zeros(len(pairs), rank, first.up.shape[1])
    for place, pair in enumerate(pairs):
        if pair is not None:
            down[place, :, : pair.down.shape[1]] = pair.down
            up[place, : pair.up.shape[0]] = pair.up
    return Pair(down, up)


class Rowwise(nn.Module):
    """Replaces a module of the base, and computes each row with that row's adapter.

    `others` are modules of adapters that are no plain LoRA; each computes its own rows apart.
    """

    def __init__(self, name: str, base_layer: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.base_layer = base_layer
        self.plan: Plan | None = None
        self.stack: Pair | None = None
        self.__dict__["others"] = {}  # by group; they are no part of the base's tree

    def forward(self, x: Tensor, *inputs: Any, **options: Any) -> Any:
        """Compute the base's module, and what the adapters of the rows add or put in its place."""
        plan, others = self.plan, self.__dict__["others"]
        if plan is None or (self.stack is None and not others):
            return self.base_layer(x, *inputs, **options)
        if plan.size is None and others:
            return others[0](x, *inputs, **options)
        if plan.size is not None and (len(x) != plan.batch or (x.is_floating_point() and x.dim() != 3)):
            raise ModelError(
                f"{self.name} does not get one row per sequence ({tuple(x.shape)} for {plan.batch}), so rows cannot "
                "have adapters of their own there; use one adapter at a time."
            )
        output: Tensor = self.base_layer(x, *inputs, **options)
        if self.stack is not None:
            output = plan.add(output, x, self.stack)
        for group, module in others.items():
            rows = plan.members[group]
            output[rows] = module(x[rows], *inputs, **options).to(output.dtype)
        return output

    def __getattr__(self, name: str) -> Any:
        """Return the base module's attribute: models read a layer's `weight`, for one."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_layer"), name)
