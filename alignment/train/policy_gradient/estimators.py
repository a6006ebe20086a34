"""Selects the advantage estimator of a recipe."""

import importlib
import inspect

from alignment.config.estimators import ADVANTAGE_ESTIMATORS
from alignment.config.schema import PolicyGradientRecipe
from alignment.ops.advantages import Estimate, EstimatorInput


def estimate_advantages(batch: EstimatorInput, recipe: PolicyGradientRecipe) -> Estimate:
    """Call the estimator that `advantage_estimator` names, with the recipe's values of its keyword-only parameters."""
    module, _, name = ADVANTAGE_ESTIMATORS[recipe.advantage_estimator].function.partition(":")
    function = getattr(importlib.import_module(module), name)
    parameters = inspect.signature(function).parameters.values()
    keys = [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    estimate: Estimate = function(batch, **{key: getattr(recipe, key) for key in keys})
    return estimate
