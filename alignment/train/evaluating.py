"""Evaluation whose numbers do not depend on the batch size, nor on the number of processes.

transformers averages the losses of batches by their rows, TRL its own metrics by batches, and where the last batch is
not full, Accelerate fills it with rows from the beginning. Here every batch counts by what it holds: tokens that carry
loss in SFT, pairs in DPO; and rows that only fill up do not count.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.trainer_utils import EvalLoopOutput

from alignment.train.resuming import ResumableTRLTrainer


class WeighedEvaluation(ResumableTRLTrainer):
    """Means over what counts, for trainers of TRL."""

    _sums: Tensor  # float64 (2,): of losses times weights, of weights; this process's
    _weights: list[float]  # of each batch, all processes together

    def counted(self, inputs: dict[str, Tensor], rows: int) -> tuple[dict[str, Tensor], float]:
        """Leave out what only fills up a batch.

        Args:
            rows: how many of this process's rows, from the first on, are not there twice; it may be more than there
                are.

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
        """Compute the loss of a batch and note what it counts for."""
        inputs, weight = self.counted(self._prepare_inputs(inputs), self._rows_that_count())
        with torch.no_grad(), self.compute_loss_context_manager():
            loss: Tensor = self.compute_loss(model, inputs, return_outputs=False).detach()
        own = torch.tensor([0.0, weight], dtype=torch.float64, device=loss.device)
        own[0] = loss.double() * weight
        self._sums = self._sums.to(loss.device) + own
        self._weights.append(float(self.accelerator.gather(own[1:]).sum()))
        return loss, None, None

    def _rows_that_count(self) -> int:
        state = self.accelerator.gradient_state
        rows: int = self.args.per_device_eval_batch_size
        if not state.end_of_dataloader or state.remainder <= 0:
            return rows
        return min(max(state.remainder - self.args.process_index * rows, 0), rows)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate as transformers does, and put the weighted means in the place of its own and TRL's."""
        self._sums, self._weights = torch.zeros(2, dtype=torch.float64), []
        self._metrics["eval"].clear()
        output = super().evaluation_loop(dataloader, description, True, ignore_keys, metric_key_prefix)
        total, weight = self.accelerator.gather(self._sums[None].to(self.args.device)).sum(dim=0).tolist()
        if weight > 0:
            output.metrics[f"{metric_key_prefix}_loss"] = total / weight
        for values in self._metrics["eval"].values():
            if len(values) == len(self._weights) and weight > 0:
                values[:] = [sum(v * w for v, w in zip(values, self._weights, strict=True)) / sum(self._weights)]
        return output
