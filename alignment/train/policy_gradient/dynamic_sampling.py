"""Dynamic sampling: which groups of a rollout have a gradient, and one rollout from parts of several."""

import torch
from torch import Tensor

from alignment.train.policy_gradient.experience import Rollout, Rows
from alignment.train.policy_gradient.scoring import Scored

Part = tuple[Rollout, Scored, Rows]  # some answers of a scored rollout


def equal_groups(rewards: Tensor, size: int) -> Tensor:
    """Return which groups have equal rewards, (groups,) bool.

    Args:
        rewards: (answers,), the groups one after the other. size: answers of a group.
    """
    grouped = rewards.view(-1, size)
    return (grouped == grouped[:, :1]).all(dim=1)


def groups_that_differ(rewards: Tensor, trains: Tensor, size: int) -> Rows:
    """Return the answers of the groups whose rewards are not all equal, and of which an answer is trained.

    Args:
        rewards: (answers,), the groups one after the other. trains: (answers,) bool. size: answers of a group.
    """
    differ = ~equal_groups(rewards, size) & trains.view(-1, size).any(dim=1)
    rows: Rows = differ.repeat_interleave(size).nonzero().flatten().tolist()
    return rows


def join_parts(parts: list[Part]) -> tuple[Rollout, Scored]:
    """Return one rollout of some answers of several, with their scores; groups are numbered anew."""
    chosen = [(rollout, row) for rollout, _, rows in parts for row in rows]
    numbers: dict[tuple[int, int], int] = {}
    rollout = Rollout(
        prompts=[each.prompts[row] for each, row in chosen],
        prompt_ids=[each.prompt_ids[row] for each, row in chosen],
        groups=[numbers.setdefault((id(each), each.groups[row]), len(numbers)) for each, row in chosen],
        completions=[each.completions[row] for each, row in chosen],
        own=parts[0][0].own,
        columns=[each.columns[row] for each, row in chosen if each.columns],
        seconds=sum(each.seconds for each in {id(each): each for each, _, _ in parts}.values()),
    )
    scored = [each for _, each, _ in parts]
    indices = [rows for _, _, rows in parts]

    def joined(tensors: list[Tensor]) -> Tensor:
        return torch.cat([tensor[rows] for tensor, rows in zip(tensors, indices, strict=True)])

    return rollout, Scored(
        joined([each.total for each in scored]),
        joined([each.normalized for each in scored]),
        {name: joined([each.parts[name] for each in scored]) for name in scored[0].parts},
    )
