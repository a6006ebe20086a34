"""Preference losses without a reference: ORPO, SimPO and CPO, with the probability of a pair in the loss.

s is the sum of an answer's log-probabilities, m = s / tokens their mean, w the chosen and l the rejected answer, σ the
logistic function:

    cpo     -log σ(β (s_w - s_l)) - α m_w            https://arxiv.org/abs/2401.08417, eq. 3 and 4
    simpo   -log σ(β (m_w - m_l) - γ) - α m_w        https://arxiv.org/abs/2405.14734, eq. 6; α is 0 there
    orpo    -m_w - β log σ(o(m_w) - o(m_l))          https://arxiv.org/abs/2403.07691, eq. 6 and 7

o(m) = m - log(1 - e^m) is the log odds, β is the paper's λ in ORPO, α is `cpo_alpha` and γ is `simpo_gamma`. With
probability p the label is chosen, with 1 - p rejected; the loss is the expectation over the label,

    p L(w, l) + (1 - p) L(l, w)

At p = 1 it is L, which equals TRL's experimental trainers, except that TRL averages the likelihood term over the tokens
of a microbatch, and ORPO's over the prompt's tokens too. Here each pair counts equally and no token of a prompt is
trained.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignment.config.schema import DPORecipe
from alignment.train.dpo import ProbabilityDPOTrainer
from alignment.train.dpo_reference import remove_reference

CERTAIN = -1e-6  # nats; a mean log-probability of 0 has infinite odds


def preference_losses(
    loss_type: str,
    sums: Tensor,
    lengths: Tensor,
    probability: Tensor,
    *,
    beta: float,
    cpo_alpha: float,
    simpo_gamma: float,
) -> Tensor:
    """Return the expected loss of each pair, see the module's docstring.

    Args:
        loss_type: orpo, simpo or cpo.
        sums: (2 pairs,) log-probabilities of the answers in nats, the chosen ones first. lengths: (2 pairs,) tokens.
        probability: (pairs,) that the chosen answer is better.
    Returns: (pairs,).
    """
    means = sums / lengths

    def of_label(better: Tensor, worse: Tensor, better_mean: Tensor, worse_mean: Tensor) -> Tensor:
        if loss_type == "orpo":
            return -better_mean - beta * logsigmoid(_log_odds(better_mean) - _log_odds(worse_mean))
        if loss_type == "simpo":
            return -logsigmoid(beta * (better_mean - worse_mean) - simpo_gamma) - cpo_alpha * better_mean
        return -logsigmoid(beta * (better - worse)) - cpo_alpha * better_mean

    (chosen, rejected), (chosen_mean, rejected_mean) = sums.chunk(2), means.chunk(2)
    as_labelled = of_label(chosen, rejected, chosen_mean, rejected_mean)
    reversed_label = of_label(rejected, chosen, rejected_mean, chosen_mean)
    return probability * as_labelled + (1 - probability) * reversed_label


def _log_odds(mean: Tensor) -> Tensor:
    """log(e^m / (1 - e^m)), the exponent kept below 0."""
    mean = mean.clamp(max=CERTAIN)
    return mean - torch.where(mean > -math.log(2), (-mean.expm1()).log(), (-mean.exp()).log1p())


def forced_arguments() -> dict[str, Any]:
    """Return the arguments with which TRL computes its metrics of the log-probabilities and loads no reference."""
    return {"loss_type": ["sigmoid"], "precompute_ref_log_probs": True}


def reference_free_trainer(recipe: DPORecipe) -> Callable[..., ProbabilityDPOTrainer]:
    """Return what builds the trainer of a recipe's loss without a reference."""
    alpha = recipe.cpo_alpha if recipe.cpo_alpha is not None else float(recipe.reference_free == "cpo")
    settings = {"loss_type": recipe.reference_free, "cpo_alpha": alpha, "simpo_gamma": recipe.simpo_gamma}
    return partial(ReferenceFreeTrainer, loss_settings=settings)


class ReferenceFreeTrainer(ProbabilityDPOTrainer):
    """`DPOTrainer` without a reference.

    Its rewards are β s with `cpo` and β m with `simpo` and `orpo`, as in TRL's experimental trainers.
    """

    _starts = False  # no reference that the first loss could be compared with

    def __init__(self, model: Any, *args: Any, loss_settings: dict[str, Any], **options: Any) -> None:
        self.loss_settings = loss_settings  # of `preference_losses`, but for beta
        super().__init__(model, *args, **options)
        remove_reference(model)

    def _precompute_ref_logps(self, dataset: Dataset, *_: Any) -> Dataset:
        """Leave the rows as they are."""
        return dataset

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return zeros, (pairs,) each."""
        nothing = torch.zeros(len(inputs["input_ids"]) // 2, device=inputs["input_ids"].device)
        return nothing, nothing

    def expected_loss(self, loss: Tensor, logps: Tensor, batch: dict[str, Any], probability: Tensor) -> Tensor:
        """Return the loss in place of TRL's, which is computed for the metrics alone."""
        mask = batch["completion_mask"]
        sums = logps[:, -(mask.size(1) - 1) :].sum(dim=1)
        lengths = mask.sum(dim=1).clamp(min=1)
        if self.loss_settings["loss_type"] != "cpo":
            self._note_rewards(self.beta * (sums / lengths).detach())
        return preference_losses(
            sums=sums, lengths=lengths, probability=probability, beta=self.beta, **self.loss_settings
        ).mean()

    def _note_rewards(self, rewards: Tensor) -> None:
        """Put rewards, (2 pairs,), in the place of those that TRL has just logged, which are of sums."""
        chosen, rejected = (self.accelerator.gather(part) for part in rewards.chunk(2))
        margins = chosen - rejected
        found = {"chosen": chosen, "rejected": rejected, "accuracies": (margins > 0).float(), "margins": margins}
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, values in found.items():
            metrics[f"rewards/{name}"][-1] = values.mean().item()
