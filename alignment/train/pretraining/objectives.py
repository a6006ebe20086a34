"""The objectives by name."""

from alignment.config.schema.pretrain import PretrainRecipe
from alignment.data.template import Template
from alignment.errors import named_inputs
from alignment.policy.tokenizer import load_tokenizer, template_of
from alignment.train.pretraining.causal import causal
from alignment.train.pretraining.masked import Masked
from alignment.train.pretraining.objective import Made, Objective, Setting
from alignment.train.pretraining.seq2seq import Seq2Seq

OBJECTIVES: dict[str, Made] = {"causal": causal, "masked": Masked, "seq2seq": Seq2Seq}


@named_inputs()
def require_objective(recipe: PretrainRecipe) -> None:
    """Refuse a tokenizer that lacks what the objective needs, before a run's folder is made.

    Raises: ModelError, with the exit code of a recipe's faults.
    """
    objective_of(recipe, template_of(recipe, load_tokenizer(recipe)), recipe.max_length or 2**31)


def objective_of(recipe: PretrainRecipe, template: Template, limit: int) -> Objective:
    """Return a recipe's objective; `limit`: tokens of a sequence."""
    return OBJECTIVES[recipe.objective](Setting.of(recipe, template, limit))
