"""Evaluation whose numbers depend neither on the batch size nor on the number of processes.

transformers weights the losses of batches by rows, TRL averages its metrics over batches, and Accelerate fills a last
batch that is not full with rows from the beginning. Here each batch is weighted by what it holds, tokens with loss in
SFT and pairs in DPO, and the rows that only fill a batch do not count.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers.trainer_utils import EvalLoopOutput

from alignment.train.resuming import ResumableTRLTrainer


class WeighedEvaluation(ResumableTRLTrainer):
    """Weighted means for TRL's trainers."""

    _losses: list[Tensor]  # of each batch, in this process
    _weights: list[int]  # of each batch, in this process
    evaluated = 0.0  # weight of all batches of the last evaluation

    def counted(self, inputs: dict[str, Tensor], rows: int) -> tuple[dict[str, Tensor], int]:
        """Remove the rows that only fill a batch.

        Args:
            rows: how many of this process's first rows are no duplicates; may exceed the batch's size.

        Returns: the batch, and its weight.
        """
        raise NotImplementedError

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, None, None]:
        """Compute the loss of a batch, and record it with its weight."""
        rows, is_cut = self._rows_that_count()
        inputs, weight = self.counted(self._prepare_inputs(inputs), rows)
        apart = self._no_gathering() if is_cut else nullcontext()
        with torch.no_grad(), self.compute_loss_context_manager(), apart:
            loss: Tensor = self.compute_loss(model, inputs, return_outputs=False).detach()
        self._losses.append(loss)
        self._weights.append(weight)
        return loss, None, None

    def _rows_that_count(self) -> tuple[int, bool]:
        """Return how many rows of this process count, and whether some process has rows that do not."""
        state, rows = self.accelerator.gradient_state, self.args.per_device_eval_batch_size
        if not state.end_of_dataloader or state.remainder <= 0 or self.args.world_size == 1:
            return rows, False
        return min(max(state.remainder - self.args.process_index * rows, 0), rows), True

    @contextmanager
    def _no_gathering(self) -> Iterator[None]:
        """Make TRL compute its metrics on this process alone: the batches of the processes differ in size."""
        accelerator: Any = self.accelerator
        accelerator.gather = accelerator.gather_for_metrics = lambda tensor, *_, **__: tensor
        try:
            yield
        finally:
            del accelerator.gather, accelerator.gather_for_metrics

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate as transformers does, and replace its means and TRL's with the weighted ones."""
        self._losses, self._weights = [], []
        noted = self._metrics["eval"]
        noted.clear()
        output = super().evaluation_loop(dataloader, description, True, ignore_keys, metric_key_prefix)
        weights = torch.tensor(self._weights, dtype=torch.float64, device=self.args.device)
        names = [name for name, values in noted.items() if len(values) == len(weights)]
        losses = [float(loss) for loss in self._losses]
        batches = torch.tensor([losses, *(noted[name] for name in names)], dtype=torch.float64, device=weights.device)
        sums = torch.cat([batches @ weights, weights.sum()[None]])
        *totals, self.evaluated = self.accelerator.gather(sums[None]).sum(dim=0).tolist()
        if self.evaluated > 0:
            loss, *means = (total / self.evaluated for total in totals)
            output.metrics[f"{metric_key_prefix}_loss"] = loss
            for name, mean in zip(names, means, strict=True):
                noted[name][:] = [mean]
        return output
