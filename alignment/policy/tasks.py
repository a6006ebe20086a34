"""Which models a task takes: by the classes that transformers has for a configuration, before any weights are read."""

from typing import Any

import transformers

from alignment.config.tasks import AUTO_CLASSES, CAUSAL, CLASSIFIER, MASKED, SEQ2SEQ
from alignment.errors import ModelError

NEEDED = {
    CAUSAL: "a decoder that predicts the next token",
    MASKED: "an encoder with a head for masked tokens, such as BERT or ModernBERT",
    SEQ2SEQ: "an encoder-decoder model, such as T5 or BART",
}
INSTEAD = {
    CAUSAL: "stages sft and pretrain (objective: causal) take it",
    MASKED: "stage pretrain takes it with objective: masked",
    SEQ2SEQ: "stage pretrain takes it with objective: seq2seq, which also trains it on pairs of prompt and completion",
}


def auto_class(task: str) -> Any:
    """Return the auto class of transformers for a task."""
    return getattr(transformers, AUTO_CLASSES[task])


def task_of_class(cls: Any) -> str:
    """Return the task of an auto class."""
    return next(task for task, name in AUTO_CLASSES.items() if name == cls.__name__)


def task_for(recipe: Any, config: Any) -> str:
    """Return the task of a recipe's stage with the model of a configuration."""
    encodes = recipe.STAGE.encoder_decoders and getattr(config, "is_encoder_decoder", False)
    return SEQ2SEQ if encodes and recipe.task == CAUSAL else str(recipe.task)


def require_task(config: Any, place: str, task: str) -> None:
    """Refuse a model whose class cannot do a task, by its configuration alone.

    Raises: ModelError.
    """
    if task == CLASSIFIER:
        return
    if is_classifier(config):
        raise ModelError(
            f"{place} is a reward model ({config.architectures[0]}), and a policy is needed here; name a "
            "language model, or the run of an SFT, DPO or PPO stage."
        )
    if _supports(config, task):
        return
    others = [other for other in (CAUSAL, MASKED, SEQ2SEQ) if other != task and _supports(config, other)]
    found = (config.architectures or [type(config).__name__])[0]
    more = f"; {INSTEAD[others[0]]}" if others else ""
    raise ModelError(f"{place} is a {found}, and {NEEDED[task]} is needed here{more}.")


def is_classifier(config: Any) -> bool:
    """Whether a configuration is a reward model's, which has its score head already."""
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or [])


def _supports(config: Any, task: str) -> bool:
    if AUTO_CLASSES[task] in (getattr(config, "auto_map", None) or {}):
        return True  # the folder's own code, which runs only with trust_remote_code
    if bool(getattr(config, "is_encoder_decoder", False)) != (task == SEQ2SEQ):
        return False
    known = {other: type(config) in auto_class(other)._model_mapping for other in (CAUSAL, MASKED, SEQ2SEQ)}
    if task == CAUSAL and known[MASKED]:  # such as BERT, which attends to both sides unless it is a decoder
        return known[CAUSAL] and bool(getattr(config, "is_decoder", False))
    return known[task] and not (task == MASKED and bool(getattr(config, "is_decoder", False)))
