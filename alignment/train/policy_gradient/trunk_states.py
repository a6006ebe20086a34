"""The shared trunk's hidden states of one rollout, computed once for all roles and epochs."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class TrunkStates:
    """Hidden states of this process's microbatches of the first epoch; `alignment.policy.trunk` defines the trunk.

    With one process, the first epoch contains all answers, and later epochs regroup its states. With several, later
    epochs deal the answers anew, and each process computes the whole pass for them: all must run the same layers where
    the weights are sharded.
    """

    def __init__(self) -> None:
        self._microbatches: list[Tensor] = []  # (batch, time, width)
        self._rows: dict[int, Tensor] = {}  # by answer: (time, width)
        self._answers = 0

    def __len__(self) -> int:
        return len(self._microbatches)

    def add(self, rows: Sequence[int], states: Tensor, lengths: Sequence[int]) -> None:
        """Add the next microbatch.

        Args:
            rows: indices of its answers. states: (batch, time, width). lengths: number of tokens of each prompt and
                answer of the whole rollout.
        """
        self._microbatches.append(states)
        self._answers = len(lengths)
        for row, state in zip(rows, states, strict=True):
            self._rows[row] = state[: lengths[row]]

    def of(self, place: int, rows: Sequence[int]) -> Tensor | None:
        """Return the states of a microbatch, (batch, time, width), zero behind the answers; None if they are unknown.

        Args:
            place: of the microbatch in the update. rows: indices of its answers.
        """
        if place < len(self._microbatches):
            return self._microbatches[place]
        if len(self._rows) < max(1, self._answers):
            return None
        return pad_sequence([self._rows[row] for row in rows], batch_first=True)
