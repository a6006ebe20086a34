"""The names by which formulas are chosen. It imports no torch, since recipes are checked without it."""

from typing import Literal

KLEstimator = Literal["k1", "k2", "k3"]
RatioLevel = Literal["token", "sequence", "trajectory"]
ScaleRewards = Literal["group", "batch", "none"]
Aggregation = Literal["token-mean", "seq-mean-token-sum", "seq-mean-token-mean"]
