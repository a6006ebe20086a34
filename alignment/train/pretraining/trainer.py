"""Pretraining with a `transformers.Trainer`: the model's own loss, and the held-out perplexity."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from alignment.data.masks import IGNORE
from alignment.train.evaluating import WeighedEvaluation
from alignment.train.pretraining.objective import Objective
from alignment.train.pretraining.rows import FIXED, EpochRows, Prepared

MOST_NATS = 700  # of a token's mean; past it exp overflows


class PretrainTrainer(WeighedEvaluation, Trainer):
    """A Trainer whose rows are drawn anew each epoch, and whose evaluation is a perplexity."""

    def __init__(
        self,
        model: Any,
        arguments: TrainingArguments,
        objective: Objective,
        train: Any,
        evaluation: Prepared,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        """Build it.

        Args:
            train: the training rows, `EpochRows` or a stream. evaluation: the held-out rows; there may be none.
        """
        self._metrics, self._total_train_tokens = {"train": {}, "eval": {}}, 0.0
        self._held_out_bytes = evaluation.size
        super().__init__(
            model=model,
            args=arguments,
            data_collator=objective.collate,
            train_dataset=train,
            eval_dataset=EpochRows(evaluation.rows, FIXED) if len(evaluation.rows) else None,
            processing_class=objective.setting.tokenizer,
            callbacks=list(callbacks),
        )
        self._of_text = objective.setting.recipe.objective == "causal"

    def _run_epoch(self, **place: Any) -> None:
        """Draw the rows' random numbers of this epoch."""
        if isinstance(self.train_dataset, EpochRows):
            self.train_dataset.epoch = place["epoch"]
        super()._run_epoch(**place)

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *args: Any, **options: Any) -> Any:
        """Return the model's loss; 0 for an evaluation batch that only fills up, whose mean would be no number."""
        loss = super().compute_loss(model, inputs, *args, **options)
        if not model.training and isinstance(loss, Tensor) and not (inputs["labels"] != IGNORE).any():
            return loss.new_zeros(())
        return loss

    def counted(self, inputs: dict[str, Tensor], rows: int) -> tuple[dict[str, Tensor], int]:
        """Mask rows that only fill up a batch; a batch weighs as much as it has predicted tokens."""
        labels = inputs["labels"].clone()
        labels[rows:] = IGNORE
        return {**inputs, "labels": labels}, int((labels != IGNORE).sum())

    def evaluation_loop(self, *args: Any, **options: Any) -> EvalLoopOutput:
        """Also report the perplexity, the number of predicted tokens, and bits for each byte of the text.

        The perplexity is exp of the mean negative log-likelihood of a predicted token, so it compares models with one
        tokenizer. Bits per byte divide the sum by the bytes of the text in place of its tokens.
        """
        output = super().evaluation_loop(*args, **options)
        prefix = options.get("metric_key_prefix", "eval")
        loss, tokens = output.metrics.get(f"{prefix}_loss"), self.evaluated
        if loss is not None and tokens:
            output.metrics[f"{prefix}_perplexity"] = math.exp(loss) if loss < MOST_NATS else None
            output.metrics[f"{prefix}_predicted_tokens"] = int(tokens)
            if self._of_text:
                output.metrics[f"{prefix}_bits_per_byte"] = loss * tokens / math.log(2) / self._held_out_bytes
        return output
