"""TRL's `SFTTrainer` on rows that are tokenised here, for decoders and for encoder-decoder models."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from trl import SFTTrainer

from alignment.data.masks import IGNORE
from alignment.errors import RecipeError
from alignment.ops.logprobs import token_entropy, token_logp
from alignment.ops.masking import masked_sum
from alignment.train.evaluating import WeighedEvaluation
from alignment.train.padding import padded, pairs_batch

ENCODED = ("input_ids", "decoder_input_ids", "labels")  # of an encoder-decoder model's row


class DemonstrationTrainer(WeighedEvaluation, SFTTrainer):
    """`SFTTrainer` whose checkpoints keep every counter, and whose evaluation is a mean over tokens."""

    def counted(self, inputs: dict[str, Tensor], rows: int) -> tuple[dict[str, Tensor], int]:
        """Mask rows that only fill up. A pack without padding is one row, so there such rows do count."""
        labels = inputs["labels"].clone()
        if len(labels) > 1:
            labels[rows:] = IGNORE
        return {**inputs, "labels": labels}, int((labels[:, 1:] != IGNORE).sum())


class EncodedTrainer(DemonstrationTrainer):
    """The trainer of encoder-decoder models, whose labels are the decoder's own and are not shifted.

    Raises: RecipeError if the model has a load-balancing loss, which is not computed.
    """

    def __init__(self, model: Any, processing_class: Any, **options: Any) -> None:
        pad = processing_class.pad_token_id
        collate = EncodedCollator(pad)
        super().__init__(model, processing_class=processing_class, data_collator=collate, **options)
        self.model_accepts_loss_kwargs = True  # the tokens of an accumulated batch are counted
        if self.aux_loss_enabled:
            raise RecipeError(
                [
                    f"{type(model).__name__} has a load-balancing loss, which stage sft does not compute for "
                    "encoder-decoder models; set router_aux_loss_coef: 0."
                ]
            )

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = list(ENCODED)

    def counted(self, inputs: dict[str, Tensor], rows: int) -> tuple[dict[str, Tensor], int]:
        """Mask rows that only fill up."""
        labels = inputs["labels"].clone()
        labels[rows:] = IGNORE
        return {**inputs, "labels": labels}, int((labels != IGNORE).sum())

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the mean loss of the decoder's tokens; of an accumulated batch, this part's share of the mean."""
        labels = inputs["labels"]
        outputs = model(**{key: value for key, value in inputs.items() if key != "labels"}, use_cache=False)
        mask, count = labels != IGNORE, num_items_in_batch
        if self.label_smoother is not None and self.args.loss_type == "nll":
            loss = self.label_smoother(outputs, labels, num_items_in_batch=count)
        else:
            logp = token_logp(outputs.logits, labels.clamp(min=0), temperature=1.0)
            weights = logp.detach().exp() if self.args.loss_type == "dft" else torch.ones_like(logp)
            total = mask.sum() if count is None else torch.as_tensor(count)
            loss = masked_sum(-weights * logp, mask) / total.clamp(min=1)
        if self.args.average_tokens_across_devices and count is not None:
            loss = loss * self.accelerator.num_processes  # whose gradients are averaged
        self._note(outputs.logits.detach(), labels, mask, inputs["attention_mask"])
        return (loss, outputs) if return_outputs else loss

    @torch.no_grad()
    def _note(self, logits: Tensor, labels: Tensor, mask: Tensor, attended: Tensor) -> None:
        """Record TRL's metrics: entropy, accuracy, and the tokens that encoder and decoder have read."""
        mode = "train" if self.model.training else "eval"
        entropy = masked_sum(token_entropy(logits, temperature=1.0), mask)
        right = ((logits.argmax(-1) == labels) & mask).sum()
        gather = self.accelerator.gather_for_metrics
        entropy, right, valid = (gather(each).sum() for each in (entropy, right, mask.sum()))
        for name, total in (("entropy", entropy), ("mean_token_accuracy", right)):
            self._metrics[mode][name].append(float(total / valid) if valid > 0 else 0.0)
        if mode == "train":
            self._total_train_tokens += int(gather(attended.sum() + mask.sum()).sum())
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]


class EncodedCollator:
    """Batches of an encoder-decoder model."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Return what `pairs_batch` returns, and `decoder_input_ids`, (batch, target time)."""
        inputs, read, labels = ([row[key] for row in rows] for key in ENCODED)
        return {**pairs_batch(inputs, labels, self.pad), "decoder_input_ids": padded(read, self.pad)}
