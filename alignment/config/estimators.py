"""The advantage estimators of `advantage_estimator`: a line for each.

To add an estimator, write a pure function with the signature of `alignment.ops.advantages.gae_estimator` and list it
here. Its keyword-only parameters are recipe keys of the same name; one without a default must be a key of every stage
that offers the estimator.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EstimatorEntry:
    """One advantage estimator."""

    function: str  # "module:function"
    uses_value: bool  # False: no value is loaded, trained, logged, planned or saved
    keys: tuple[str, ...] = ()  # of PPO's recipe, that it reads
    compares: bool = False  # it compares the answers to one prompt, and needs two or more
    whitens: bool = False  # its source whitens the advantages of a rollout


ADVANTAGE_ESTIMATORS: dict[str, EstimatorEntry] = {
    "gae": EstimatorEntry(
        "alignment.ops.advantages:gae_estimator", uses_value=True, keys=("gamma", "lam", "lam_value"), whitens=True
    ),
    "grpo": EstimatorEntry("alignment.ops.group_advantages:grpo", uses_value=False, compares=True),
    "dr_grpo": EstimatorEntry("alignment.ops.group_advantages:dr_grpo", uses_value=False, compares=True),
    "rloo": EstimatorEntry("alignment.ops.group_advantages:rloo", uses_value=False, compares=True),
    "reinforce_plus_plus": EstimatorEntry(
        "alignment.ops.group_advantages:reinforce_plus_plus", uses_value=False, keys=("gamma",), whitens=True
    ),
    "reinforce_plus_plus_baseline": EstimatorEntry(
        "alignment.ops.group_advantages:reinforce_plus_plus_baseline", uses_value=False, compares=True, whitens=True
    ),
}
