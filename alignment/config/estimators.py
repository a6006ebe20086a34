"""The advantage estimators of `advantage_estimator`: a line for each.

To add an estimator, write a pure function with the signature of `alignment.ops.advantages.gae_estimator` and list it
here. Its keyword-only parameters are the recipe keys of the same name.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EstimatorEntry:
    """One advantage estimator."""

    function: str  # "module:function"
    uses_value: bool  # False: no value is loaded, trained, logged, planned or saved


ADVANTAGE_ESTIMATORS: dict[str, EstimatorEntry] = {
    "gae": EstimatorEntry("alignment.ops.advantages:gae_estimator", uses_value=True),
}
