"""A separate value model: a decoder with a scalar head, trained whole or by an adapter."""

from typing import Any

from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import AutoConfig

from alignment.config.schema import AdapterKeys, ModelKeys, ValueRecipe
from alignment.errors import ModelError
from alignment.policy.adapter_files import read_adapter_config
from alignment.policy.base import load_sequence_classifier
from alignment.policy.heads import ScalarHead
from alignment.policy.model_source import ModelSource, resolve_model


def value_keys(recipe: ValueRecipe) -> ModelKeys:
    """Return the value model's keys: held as the base, but in floating point if its method does not allow it."""
    assert recipe.value_model_path is not None
    held = {key: getattr(recipe, key) for key in ModelKeys.model_fields if key != "model_revision"}
    held |= {"model_name_or_path": recipe.value_model_path}
    keys = ModelKeys(**held)
    return keys if recipe.value_method.allows_bits(keys.bits) else keys.in_floats()


def load_value_model(recipe: ValueRecipe) -> tuple[Any, ScalarHead]:
    """Load `value_model_path` without its output layer, and the head that reads its hidden states.

    A reward model keeps its head; a language model gets one of zeros.

    Raises: ModelError if it cannot be loaded or is no decoder.
    """
    keys = value_keys(recipe)
    source = resolve_model(keys.model_name_or_path)
    model = load_sequence_classifier(keys, trainable=True, peft=_adapter(recipe, source))
    classifier = model.get_base_model() if hasattr(model, "get_base_model") else model
    score = getattr(classifier, "score", None)
    if isinstance(score, ModulesToSaveWrapper):
        score = score.modules_to_save["default"]
    if not isinstance(score, nn.Linear) or score.out_features != 1:
        raise ModelError(
            f"value_model_path {recipe.value_model_path}: {type(classifier).__name__} is not a decoder with one output "
            "called score; name a language model, or a reward model trained from one."
        )
    weight = score.weight if _has_head(source, keys) else None
    classifier.score = nn.Identity()
    return model, ScalarHead(classifier.config.get_text_config().hidden_size, weight)


def _adapter(recipe: ValueRecipe, source: ModelSource) -> AdapterKeys:
    """Return what trains; an existing adapter keeps its shape."""
    if source.adapter is not None and recipe.value_method.has_adapter:
        return AdapterKeys()
    shape = {key: getattr(recipe, key) for key in AdapterKeys.model_fields}
    return AdapterKeys(**{**shape, **recipe.with_method(recipe.value_peft_method or recipe.peft_method)})


def _has_head(source: ModelSource, keys: ModelKeys) -> bool:
    """Whether the saved model is a sequence classifier, not a language model that is loaded as one."""
    if source.adapter is not None:
        return read_adapter_config(source.adapter).task_type == "SEQ_CLS"
    config = AutoConfig.from_pretrained(source.base, trust_remote_code=keys.trust_remote_code)
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or [])
