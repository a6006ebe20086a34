"""The parameter nu of Davidson's model, trained together with the scores."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from alignment.errors import DataError
from alignment.run.files import write_json
from reward.models.batches import EncodedRanking
from reward.models.losses import TIE

FILE = "davidson.json"  # beside the weights, which are those of a plain sequence classifier
NAME = "davidson_log_nu"
LEARNING_RATE = 0.02  # of log nu; Adam changes it by about this much per step
MOST_TIES = 0.95  # upper bound of the share of ties for the initial nu


def first_log_nu(rankings: Sequence[EncodedRanking]) -> float:
    """Return the initial log nu: at equal scores, P(tie) = nu / (2 + nu) is the labels' share of ties.

    Raises: DataError if no label is a tie.
    """
    labels = [probability for ranking in rankings for _, _, probability, _ in ranking.pairs]
    share = sum(probability == TIE for probability in labels) / len(labels)
    if not share:
        raise DataError(
            f"ties: davidson learns the probability of ties, and none of the {len(labels)} training pairs is one; use "
            "ties: half."
        )
    share = min(share, MOST_TIES)
    return math.log(2 * share / (1 - share))


def add_log_nu(model: nn.Module, rankings: Sequence[EncodedRanking]) -> nn.Parameter:
    """Give the model the parameter `davidson_log_nu`, so that whatever wraps the model treats it as its own."""
    device = next(model.parameters()).device
    parameter = nn.Parameter(torch.tensor([first_log_nu(rankings)], dtype=torch.float32, device=device))
    model.register_parameter(NAME, parameter)
    return parameter


def write_nu(folder: Path, log_nu: nn.Parameter) -> None:
    """Write nu beside the weights."""
    write_json(folder / FILE, {"nu": math.exp(log_nu.item()), "log_nu": log_nu.item()})


def read_nu(folder: Path, log_nu: nn.Parameter) -> None:
    """Take over what `write_nu` wrote."""
    with torch.no_grad():
        log_nu.fill_(json.loads((folder / FILE).read_text(encoding="utf-8"))["log_nu"])
