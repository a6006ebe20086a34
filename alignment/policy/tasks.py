"""Which models a task takes: by the classes that transformers has for a configuration, before any weights are read."""

from typing import Any

import transformers

from alignment.config.tasks import AUTO_CLASSES, CAUSAL, CLASSIFIER, MASKED, SEQ2SEQ
from alignment.errors import ModelError
from alignment.rollout.context import is_encoder_decoder

NEEDED = {
    CLASSIFIER: "a decoder",
    CAUSAL: "a decoder that predicts the next token",
    MASKED: "an encoder with a head for masked tokens, such as BERT or ModernBERT",
    SEQ2SEQ: "an encoder-decoder model, such as T5 or BART",
}
INSTEAD = {
    CAUSAL: "stages sft and pretrain (objective: causal) take it",
    MASKED: "stage pretrain takes it with objective: masked",
    SEQ2SEQ: "stages sft, label and evaluate take it, and pretrain with objective: seq2seq",
}


NOT_ENCODED = {  # keys that a decoder alone takes, and why
    "packing": "a row has an encoder's input and a decoder's, and a sequence of several rows would mix them",
    "eval_packing": "a row has an encoder's input and a decoder's, and a sequence of several rows would mix them",
    "padding_free": "a row has an encoder's input and a decoder's, and a sequence of several rows would mix them",
    "use_liger_kernel": "its kernels are of decoders",
    "add_tokens": "its encoder, its decoder and its output layer share one table of tokens",
    "proxy": "the logits of three decoders are added",
    "tasks": "lm-eval's tasks are put to decoders here",
}


def require_keys_of_encoders(keys: Any, place: str) -> None:
    """Refuse keys of a recipe that an encoder-decoder model does not take.

    Args:
        keys: a recipe, or keys of its model. place: of the model.

    Raises: ModelError.
    """
    library = getattr(keys, "library", {})
    for key, reason in NOT_ENCODED.items():
        if getattr(keys, key, None) or library.get(key):
            raise ModelError(f"{key} cannot be used with the encoder-decoder model {place}: {reason}; take it out.")


def auto_class(task: str) -> Any:
    """Return the auto class of transformers for a task."""
    return getattr(transformers, AUTO_CLASSES[task])


def task_of_class(cls: Any) -> str:
    """Return the task of an auto class."""
    return next(task for task, name in AUTO_CLASSES.items() if name == cls.__name__)


def task_for(recipe: Any, config: Any) -> str:
    """Return the task of a recipe's stage with the model of a configuration."""
    encodes = recipe.STAGE.encoder_decoders and is_encoder_decoder(config)
    return SEQ2SEQ if encodes and recipe.task == CAUSAL else str(recipe.task)


def policy_task(config: Any) -> str:
    """Return the task of a policy with a configuration."""
    return SEQ2SEQ if is_encoder_decoder(config) else CAUSAL


def require_task(config: Any, place: str, task: str) -> None:
    """Refuse a model whose class cannot do a task, by its configuration alone.

    Raises: ModelError.
    """
    if task == CLASSIFIER and not is_encoder_decoder(config):
        return
    if task != CLASSIFIER and is_classifier(config):
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
    if is_encoder_decoder(config) != (task == SEQ2SEQ):
        return False
    known = {other: type(config) in auto_class(other)._model_mapping for other in (CAUSAL, MASKED, SEQ2SEQ)}
    if task == CAUSAL and known[MASKED]:  # such as BERT, which attends to both sides unless it is a decoder
        return known[CAUSAL] and bool(getattr(config, "is_decoder", False))
    return known[task] and not (task == MASKED and bool(getattr(config, "is_decoder", False)))
