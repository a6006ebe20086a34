"""KTO with TRL's `KTOTrainer`, where an answer carries the probability that it is good.

r is the log ratio of policy and reference for an answer, z the KL of the policy from its reference, σ the logistic
function, λ_D and λ_U the weights of good and bad answers (https://arxiv.org/abs/2402.01306, eq. 7 and 8):

    kto                 good: λ_D (1 - σ(β (r - z)))      bad: λ_U (1 - σ(β (z - r))) = λ_U σ(β (r - z))
    apo_zero_unpaired   the same with z = 0 (https://arxiv.org/abs/2408.06266, eq. 7, unpaired)

The label is good with probability p and bad with 1 - p; the loss is the expectation over the label. With
s = σ(β (r - z)):

    p λ_D (1 - s) + (1 - p) λ_U s

It is TRL's loss of the more probable label plus (1 - p) (λ_U s - λ_D (1 - s)), or p (λ_D (1 - s) - λ_U s) where that
label is bad, and so it is computed: at p = 0 and 1 it is TRL's loss to the last bit. z does not depend on the labels.

z is the mean of r over mismatched answers (`alignment.train.unpaired_rows`), at least 0 and without a gradient. In
training it is the mean over one microbatch of all processes, as in TRL: it depends on `per_device_train_batch_size` and
on the number of processes, but not on padding. In evaluation it is the mean over all held-out rows, so that the numbers
do not depend on the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput
from trl import KTOConfig, KTOTrainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from alignment.data.answer_labels import require_both_labels
from alignment.train.dpo_reference import require_zero_rewards
from alignment.train.unpaired_rows import WITHOUT_KL, ordered, require_evaluable
from alignment.train.with_reference import NotedCalls, ReferenceTrainer, built_with_reference, without_probability


@dataclass
class LabelCollator(DataCollatorForUnpairedPreference):
    """TRL's collator; `probability` (rows,) float32 goes along, and gives the label."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pad the rows."""
        labelled = [{**example, "label": example["probability"] >= 0.5} for example in examples]
        batch: dict[str, Any] = super().torch_call(labelled)
        batch["probability"] = torch.tensor([example["probability"] for example in examples], dtype=torch.float32)
        return batch


@dataclass(frozen=True, slots=True, kw_only=True)
class KTOLoss:
    """The constants of the loss."""

    beta: float
    desirable_weight: float
    undesirable_weight: float

    def of_labels(self, log_ratios: Tensor, kl: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return the loss (rows,) of each answer if it is good, and if it is bad.

        Args:
            log_ratios: (rows,) in nats, of policy and reference. kl: in nats, 0 for a loss without one.
        """
        likes = torch.sigmoid(self.beta * (log_ratios - kl))
        return self.desirable_weight * (1 - likes), self.undesirable_weight * likes

    def expected(self, log_ratios: Tensor, kl: Tensor | float, probability: Tensor) -> Tensor:
        """Return the expected loss (rows,); probability: (rows,) that an answer is good."""
        good, bad = self.of_labels(log_ratios, kl)
        return probability * good + (1 - probability) * bad

    def beyond_label(self, log_ratios: Tensor, kl: Tensor | float, probability: Tensor) -> Tensor:
        """Return the expected loss less that of the more probable label, (rows,); 0 where the label is certain."""
        good, bad = self.of_labels(log_ratios, kl)
        return torch.where(probability >= 0.5, (1 - probability) * (bad - good), probability * (good - bad))


class ProbabilityKTOTrainer(ReferenceTrainer, KTOTrainer):
    """`KTOTrainer` on tokenised rows with a `probability`."""

    _evaluated: list[Tensor] | None = None  # in an evaluation, of each batch in this process: (4, rows), see `_noted`

    def counted(self, inputs: dict[str, Tensor], rows: int) -> tuple[dict[str, Tensor], int]:
        """Leave out padding rows, except one where a process has no other."""
        given = len(inputs["probability"])
        return {key: value[: max(rows, 1)] for key, value in inputs.items()}, min(rows, given)

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities (rows,) of the answers and of the mismatched ones under the reference."""
        logps: tuple[Tensor, Tensor | None] = super().compute_ref_log_probs(model, without_probability(inputs))
        return logps

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        """TRL's loss, plus the expectation's terms.

        The reference's log-probabilities are computed first and handed to TRL as if they had been precomputed, and
        the policy's are noted as they pass by, so that the expectation costs no further forward pass.
        """
        batch, probability = without_probability(inputs), inputs["probability"]
        if "ref_logps" not in batch:
            reference = self.ref_model if self.ref_model is not None else self.model
            batch["ref_logps"], of_mismatched = self.compute_ref_log_probs(reference, batch)
            if self.calculate_KL:
                batch["ref_KL_logps"] = of_mismatched
        policy = NotedCalls(model)
        with self._references_given():
            result = super()._compute_loss(policy, batch, return_outputs)
        metrics = self._metrics["train" if self.model.training else "eval"]
        if self.is_first_batch():
            require_zero_rewards(
                [metrics[name][-1] for name in ("rewards/chosen", "rewards/rejected") if metrics.get(name)]
            )
        loss, outputs = result if return_outputs else (result, None)
        logps = _of_sequences(policy.logps[-1], batch["input_ids"])
        log_ratios = logps - batch["ref_logps"]
        loss = loss + self.constants().beyond_label(log_ratios, metrics["kl"][-1], probability).mean()
        if self._evaluated is not None:
            self._evaluated.append(self._noted(policy, batch, logps, log_ratios, probability))
        return (loss, outputs) if return_outputs else loss

    def constants(self) -> KTOLoss:
        """Return the constants of the loss."""
        weights = {"desirable_weight": self.desirable_weight, "undesirable_weight": self.undesirable_weight}
        return KTOLoss(beta=self.beta, **weights)

    def _noted(
        self, policy: NotedCalls, batch: dict[str, Any], logps: Tensor, log_ratios: Tensor, probability: Tensor
    ) -> Tensor:
        """Return (4, rows): log-probability, log ratio, that of the mismatched answer, probability."""
        of_mismatched = torch.zeros_like(logps)
        if self.calculate_KL:
            of_mismatched = _of_sequences(policy.logps[0], batch["KL_input_ids"]) - batch["ref_KL_logps"]
        return torch.stack([logps, log_ratios, of_mismatched, probability]).detach().double().cpu()

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate, and compute the loss and TRL's metrics over all rows together, with one KL."""
        noted: list[Tensor] = []
        self._evaluated = noted
        try:
            output = super().evaluation_loop(dataloader, description, True, ignore_keys, metric_key_prefix)
        finally:
            self._evaluated = None
        mine = [rows[:, :weight].tolist() for rows, weight in zip(noted, self._weights, strict=True)]
        rows = torch.cat(
            [torch.tensor(part, dtype=torch.float64).reshape(4, -1) for part in gather_object(mine)], dim=1
        )
        loss, metrics = evaluated(self.constants(), *rows)
        output.metrics[f"{metric_key_prefix}_loss"] = loss
        for name, value in metrics.items():
            self._metrics["eval"][name][:] = [value]
        return output


def evaluated(
    constants: KTOLoss, logps: Tensor, log_ratios: Tensor, of_mismatched: Tensor, probability: Tensor
) -> tuple[float, dict[str, float]]:
    """Return the loss and TRL's metrics of all rows of an evaluation, (rows,) each."""
    kl = of_mismatched.mean().clamp(min=0)
    metrics = {"kl": float(kl)}
    rewards = constants.beta * log_ratios
    for name, rows in (("chosen", probability >= 0.5), ("rejected", probability < 0.5)):
        if rows.any():
            metrics |= {f"rewards/{name}": float(rewards[rows].mean()), f"logps/{name}": float(logps[rows].mean())}
    if {"rewards/chosen", "rewards/rejected"} <= metrics.keys():
        metrics["rewards/margins"] = metrics["rewards/chosen"] - metrics["rewards/rejected"]
    return float(constants.expected(log_ratios, kl, probability).mean()), metrics


def _of_sequences(per_token: Tensor, input_ids: Tensor) -> Tensor:
    """Return the log-probabilities of answers, (rows,); a soft prompt's positions come before those of `input_ids`."""
    return per_token[:, -(input_ids.size(1) - 1) :].sum(dim=1)


def kto_trainer(
    model: Any,
    tokenizer: Any,
    arguments: KTOConfig,
    *,
    reference: Any = None,
    trainer_class: Callable[..., ProbabilityKTOTrainer] = ProbabilityKTOTrainer,
    train: Sequence[dict[str, Any]],
    evaluation: Sequence[dict[str, Any]] = (),
    callbacks: list[TrainerCallback] | None = None,
) -> ProbabilityKTOTrainer:
    """Build the trainer.

    Args:
        reference: the reference model of full fine-tuning; an adapter's is its start: the base, or a frozen copy.
        trainer_class: what builds the trainer from TRL's arguments.
        train, evaluation: rows of `tokenise_unpaired`.

    Raises: RecipeError where the keys contradict each other, DataError where the labels are all the same, or one
    answer alone is held out.
    """
    require_both_labels([row["probability"] for row in train])
    require_evaluable(evaluation, loss_type=arguments.loss_type)
    has_kl = arguments.loss_type not in WITHOUT_KL
    microbatch = arguments.per_device_train_batch_size if has_kl else None
    whole = max(len(evaluation), 1) if has_kl else None
    return built_with_reference(
        trainer_class,
        model,
        arguments,
        reference=reference,
        tokenizer=tokenizer,
        collator=LabelCollator(pad_token_id=tokenizer.pad_token_id, pad_to_multiple_of=arguments.pad_to_multiple_of),
        train=ordered(train, seed=arguments.seed, microbatch=microbatch),
        evaluation=ordered(evaluation, seed=arguments.seed, microbatch=whole),
        callbacks=callbacks,
    )
