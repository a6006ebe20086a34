"""What an evaluation reads, checked for every policy before the run's folder is made or a model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from alignment.config.schema import EvaluateRecipe
from alignment.data.template import Template
from alignment.errors import DataError, LineageError, ModelError, named_inputs
from alignment.evaluate.forgetting import Outside, require_comparable
from alignment.evaluate.heldout import HeldOut, held_out_prompts, outside_domain, outside_text
from alignment.evaluate.questions import Questions, require_fitting
from alignment.policy.base import config_of, require_loadable, task_of
from alignment.policy.proxy import require_one_tokenizer
from alignment.policy.tasks import require_keys_of_encoders
from alignment.policy.tokenizer import load_tokenizer, template_of
from alignment.rollout.context import context_of, prompt_room


@dataclass(frozen=True, slots=True)
class Inputs:
    """Held-out prompts, and what is read outside the domain."""

    held_out: HeldOut
    text: str | None  # of `perplexity_datasets`
    outside: Outside | None
    templates: dict[str, Template]  # of the candidates, by name


@named_inputs(DataError, LineageError, ModelError)
def read_inputs(recipe: EvaluateRecipe, questions: Sequence[Questions] = ()) -> Inputs:
    """Read what the policies are measured on.

    Raises: DataError if data cannot be read, or a prompt leaves no room for an answer in a policy's context;
        ModelError if a policy cannot be loaded or measured.
    """
    held_out, outside = held_out_prompts(recipe), outside_domain(recipe, questions)
    templates: dict[str, Template] = {}
    places = {each.name: each.model_name_or_path for each in recipe.candidates}
    for name, path in (places | {recipe.baseline_name: recipe.model_name_or_path}).items():
        keys = recipe.model_copy(update={"model_name_or_path": path})
        require_loadable(keys, trainable=False, peft=None, task=task_of(keys))
        templates[name] = template = template_of(keys, load_tokenizer(keys))
        context = context_of(SimpleNamespace(config=config_of(keys)))
        room = prompt_room(context, recipe.max_new_tokens, encoded=template.sides is not None)
        for prompt, source in zip(held_out.prompts, held_out.sources, strict=True):
            length = len(template.prompt_ids(prompt))
            if room is not None and length > room:
                raise DataError(
                    f"{source}: the prompt has {length} tokens, which leaves no {recipe.max_new_tokens} for an answer "
                    f"in the context of {name}, {context}; lower max_new_tokens, or take the row out."
                )
        for each in questions:
            require_fitting(each, template, context)
    _require_measurable(recipe, templates, outside)
    del templates[recipe.baseline_name]
    return Inputs(held_out, outside_text(recipe), outside, templates)


def _require_measurable(recipe: EvaluateRecipe, templates: dict[str, Template], outside: Outside | None) -> None:
    """Refuse what cannot be measured of encoder-decoder models.

    Raises: DataError, ModelError.
    """
    for candidate in recipe.candidates:
        if templates[candidate.name].sides:
            require_keys_of_encoders(candidate, candidate.model_name_or_path)
            require_keys_of_encoders(recipe, candidate.model_name_or_path)
        if candidate.proxy is not None:
            keys = recipe.model_copy(update={"model_name_or_path": candidate.model_name_or_path})
            require_one_tokenizer(keys, candidate.proxy)
    require_comparable(outside, templates)
