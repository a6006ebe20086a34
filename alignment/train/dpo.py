"""DPO with TRL's `DPOTrainer`, where a pair carries the probability that its chosen answer is the better one.

The label is chosen with probability p and rejected with 1 - p; the loss is the expectation over the label:

    sigmoid   -p log σ(βΔ) - (1-p) log σ(-βΔ)        = -log σ(βΔ)      + (1-p) βΔ      as -log σ(-x) = -log σ(x) + x
    ipo       p (Δ' - 1/2β)² + (1-p) (Δ' + 1/2β)²    = (Δ' - 1/2β)²    + (1-p) 2Δ'/β

Δ is the difference of the log ratios of chosen and rejected (https://arxiv.org/abs/2305.18290, eq. 7), Δ' that of
their means over tokens, as TRL's `ipo` has it (https://arxiv.org/abs/2310.12036, eq. 17). In both the expectation is
TRL's own loss plus a term linear in Δ, and so it is computed: at p = 1 it is TRL's loss to the last bit.

`alignment.train.reference_free` has losses without a reference. TRL's other losses train on the more probable answer as
if it were certain.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from alignment.config.schema.dpo import REFERENCE_FREE
from alignment.errors import RecipeError
from alignment.train.dpo_reference import require_start
from alignment.train.preference_pairs import require_pairs
from alignment.train.with_reference import NotedCalls, ReferenceTrainer, built_with_reference, without_probability

SOFT_LOSSES = frozenset({"sigmoid", "ipo", *REFERENCE_FREE})


def takes_ties(loss_types: str | Sequence[str]) -> bool:
    """Whether a loss of the recipe can use pairs of probability one half."""
    return not SOFT_LOSSES.isdisjoint([loss_types] if isinstance(loss_types, str) else loss_types)


@dataclass
class ProbabilityCollator(DataCollatorForPreference):
    """TRL's collator; `probability` (pairs,) float32 goes along."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pad the pairs; the batch is all chosen, then all rejected answers."""
        batch: dict[str, Any] = super().torch_call(examples)
        batch["probability"] = torch.tensor([example["probability"] for example in examples], dtype=torch.float32)
        return batch


def expectation_terms(loss_type: str, delta: Tensor, probability: Tensor, beta: float) -> Tensor:
    """What turns TRL's loss of a certain label into the expectation over an uncertain one, see the module's head.

    Args:
        loss_type: `sigmoid` or `ipo`; zero for any other.
        delta: (pairs,) Δ for `sigmoid`, Δ' for `ipo`, in nats. probability: (pairs,) that chosen is better.
    """
    if loss_type == "sigmoid":
        return (1 - probability) * beta * delta
    if loss_type == "ipo":
        return (1 - probability) * 2 * delta / beta
    return torch.zeros_like(delta)


class ProbabilityDPOTrainer(ReferenceTrainer, DPOTrainer):
    """`DPOTrainer` on tokenised rows with a `probability`."""

    def counted(self, inputs: dict[str, Tensor], rows: int) -> tuple[dict[str, Tensor], int]:
        """Leave out padding pairs, except one where a process has no other."""
        pairs = len(inputs["probability"])
        kept = min(max(rows, 1), pairs)
        if kept == pairs:
            return inputs, min(rows, pairs)
        halves = torch.cat([torch.arange(kept), torch.arange(pairs, pairs + kept)])
        cut = {
            key: value[halves.to(value.device)] if len(value) == 2 * pairs else value[:kept]
            for key, value in inputs.items()
        }
        return cut, min(rows, pairs)

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Log-probabilities (pairs,) of chosen and rejected answers under the reference."""
        logps: tuple[Tensor, Tensor] = super().compute_ref_log_probs(model, without_probability(inputs))
        return logps

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        """TRL's loss, plus the expectation's terms.

        The reference's log-probabilities are computed first and handed to TRL as if they had been precomputed, and
        the policy's are noted as they pass by, so that Δ costs no further forward pass.
        """
        batch = without_probability(inputs)
        if "ref_chosen_logps" not in batch:
            reference = self.ref_model if self.ref_model is not None else self.model
            batch["ref_chosen_logps"], batch["ref_rejected_logps"] = self.compute_ref_log_probs(reference, batch)
        policy = NotedCalls(model)
        with self._references_given():
            result = super()._compute_loss(policy, batch, return_outputs)
        if self.is_first_batch():
            require_start(self._metrics["train"]["rewards/margins"][-1])
        loss, outputs = result if return_outputs else (result, None)
        loss = self.expected_loss(loss, policy.logps[0], batch, inputs["probability"])
        return (loss, outputs) if return_outputs else loss

    def expected_loss(self, loss: Tensor, logps: Tensor, batch: dict[str, Any], probability: Tensor) -> Tensor:
        """Return the expectation of the loss over the labels of a batch; logps: (2 pairs, time), the policy's."""
        return loss + self._terms(logps, batch, probability)

    def _terms(self, per_token_logps: Tensor, batch: dict[str, Any], probability: Tensor) -> Tensor:
        mask = batch["completion_mask"]
        logps = per_token_logps[:, -(mask.size(1) - 1) :].sum(dim=1)
        ratios = logps - torch.cat([batch["ref_chosen_logps"], batch["ref_rejected_logps"]])
        lengths = mask.sum(dim=1).clamp(min=1)
        total = torch.zeros((), device=ratios.device)
        for loss_type, weight in zip(self.loss_types, self.loss_weights, strict=True):
            chosen, rejected = (ratios / lengths if loss_type == "ipo" else ratios).chunk(2)
            terms = expectation_terms(loss_type, chosen - rejected, probability, self.beta)
            total = total + weight * terms.mean()
        return total


def dpo_trainer(
    model: Any,
    tokenizer: Any,
    arguments: DPOConfig,
    *,
    reference: Any = None,
    trainer_class: Callable[..., ProbabilityDPOTrainer] = ProbabilityDPOTrainer,
    train: Sequence[dict[str, Any]],
    evaluation: Sequence[dict[str, Any]] = (),
    callbacks: list[TrainerCallback] | None = None,
) -> ProbabilityDPOTrainer:
    """Build the trainer.

    Args:
        reference: the reference model of full fine-tuning; an adapter's is its start: the base, or a frozen copy.
        trainer_class: what builds the trainer from TRL's arguments.
        train, evaluation: rows of `tokenise_pairs`.

    Raises: RecipeError where the keys contradict each other or the rows, DataError where no pair is left.
    """
    require_pairs(train)
    soft = SOFT_LOSSES & set(arguments.loss_type)
    uncertain = any(row["probability"] < 1 for rows in (train, evaluation) for row in rows)
    if soft and uncertain:
        _require_plain_delta(arguments)
    collator = ProbabilityCollator(pad_token_id=tokenizer.pad_token_id, pad_to_multiple_of=arguments.pad_to_multiple_of)
    return built_with_reference(
        trainer_class,
        model,
        arguments,
        reference=reference,
        tokenizer=tokenizer,
        collator=collator,
        train=train,
        evaluation=evaluation,
        callbacks=callbacks,
    )


def _require_plain_delta(arguments: DPOConfig) -> None:
    changed = {
        "f_divergence_type": arguments.f_divergence_type != "reverse_kl",
        "ld_alpha": arguments.ld_alpha is not None,
        "use_weighting": arguments.use_weighting,
    }
    faults = [
        f"{key} changes the loss in a way that has no form for rows with a probability below 1; leave it out, or use "
        f"rows whose labels are certain."
        for key, given in changed.items()
        if given
    ]
    if faults:
        raise RecipeError(faults)
