"""The objectives by name."""

from alignment.config.schema.pretrain import PretrainRecipe
from alignment.data.template import Template
from alignment.train.pretraining.causal import causal
from alignment.train.pretraining.objective import Made, Objective, Setting

OBJECTIVES: dict[str, Made] = {"causal": causal}


def objective_of(recipe: PretrainRecipe, template: Template, limit: int) -> Objective:
    """Return a recipe's objective; `limit`: tokens of a sequence."""
    return OBJECTIVES[recipe.objective](Setting.of(recipe, template, limit))
