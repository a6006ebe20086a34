"""Selects the advantage estimator of an update."""

import importlib
import inspect

from alignment.config.estimators import ADVANTAGE_ESTIMATORS
from alignment.config.update_rule import UpdateRule
from alignment.ops.advantages import Estimate, EstimatorInput


def estimate_advantages(batch: EstimatorInput, rule: UpdateRule) -> Estimate:
    """Call the estimator of a rule with those of the rule's keys that are its keyword-only parameters."""
    module, _, name = ADVANTAGE_ESTIMATORS[rule.advantage_estimator].function.partition(":")
    function = getattr(importlib.import_module(module), name)
    parameters = inspect.signature(function).parameters.values()
    keys = [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    estimate: Estimate = function(
        batch, **{key: rule.estimator_keys[key] for key in keys if key in rule.estimator_keys}
    )
    return estimate
