"""Pretraining with a `transformers.Trainer`: the model's own loss, and the held-out perplexity."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from alignment.config.schema.pretrain import PretrainRecipe
from alignment.data.masks import IGNORE
from alignment.train.evaluating import WeighedEvaluation
from alignment.train.pretraining.objective import Objective
from alignment.train.pretraining.rows import FIXED, EpochRows, Prepared
from alignment.train.pretraining.stream import StreamLoader, TextStream

MOST_NATS = 700  # of a token's mean; past it exp overflows


def forced(recipe: PretrainRecipe) -> dict[str, Any]:
    """Return the arguments of the Trainer that the stage decides: a stream resumes from its own place."""
    return {"remove_unused_columns": False, **({"ignore_data_skip": True} if recipe.streaming else {})}


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
        self.model_accepts_loss_kwargs = True  # the predicted tokens of an update are counted

    def _run_epoch(self, **place: Any) -> None:
        """Draw the rows' random numbers of this epoch."""
        if isinstance(self.train_dataset, EpochRows):
            self.train_dataset.epoch = place["epoch"]
        super()._run_epoch(**place)

    def get_train_dataloader(self) -> Any:
        """Return batches of a stream as they are needed: a loader that reads ahead would lose what it has read."""
        if isinstance(self.train_dataset, TextStream):
            return StreamLoader(self.train_dataset, self.args.per_device_train_batch_size, self._restore_random)
        return super().get_train_dataloader()

    def _restore_random(self) -> None:
        """Restore the random states of the checkpoint, as the Trainer does where it skips rows."""
        if self._resumed_from is not None:
            self._load_rng_state(str(self._resumed_from))
            self._resumed_from = None

    def own_counters(self) -> dict[str, Any]:
        """Return the counters, and the place of a stream."""
        stream = self.train_dataset
        held = {"stream": stream.state_dict()} if isinstance(stream, TextStream) else {}
        return super().own_counters() | held

    def restore_own(self, counters: dict[str, Any], share: float) -> None:
        """Restore the counters, and the place of a stream."""
        super().restore_own(counters, share)
        if isinstance(self.train_dataset, TextStream):
            self.train_dataset.load_state_dict(counters["stream"])

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the model's loss; 0 for an evaluation batch that only fills up, whose mean would be no number.

        The model computes a mean over its own batch, and decoders alone one over all batches of an update. Others get
        their share of it here: transformers would add up the means.
        """
        count = num_items_in_batch if self._of_text else None
        found = super().compute_loss(model, inputs, return_outputs, count)
        loss = found[0] if return_outputs else found
        predicted = (inputs["labels"] != IGNORE).sum()
        if not model.training and not predicted:
            loss = loss.new_zeros(())
        elif num_items_in_batch is not None and not self._of_text:
            processes = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
            loss = loss * predicted / num_items_in_batch * processes
        return (loss, found[1]) if return_outputs else loss

    def counted(self, inputs: dict[str, Tensor], rows: int) -> tuple[dict[str, Tensor], int]:
        """Mask rows that only fill up a batch; a batch weighs as much as it has predicted tokens."""
        labels = inputs["labels"].clone()
        labels[rows:] = IGNORE
        return {**inputs, "labels": labels}, int((labels != IGNORE).sum())

    def evaluation_loop(self, *args: Any, **options: Any) -> EvalLoopOutput:
        """Also report the perplexity, the number of predicted tokens, and bits for each byte of the text.

        The perplexity is exp of the mean negative log-likelihood of a predicted token, so it compares models with one
        tokenizer. Bits per byte divide the sum by the bytes of the predicted tokens.
        """
        output = super().evaluation_loop(*args, **options)
        prefix = options.get("metric_key_prefix", "eval")
        loss, tokens = output.metrics.get(f"{prefix}_loss"), self.evaluated
        if loss is not None and tokens:
            output.metrics[f"{prefix}_perplexity"] = math.exp(loss) if loss < MOST_NATS else None
            output.metrics[f"{prefix}_predicted_tokens"] = int(tokens)
            if self._of_text and self._held_out_bytes > 0:
                output.metrics[f"{prefix}_bits_per_byte"] = loss * tokens / math.log(2) / self._held_out_bytes
        return output
