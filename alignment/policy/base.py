"""Loading of a model: the base, and an adapter on it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
)

from alignment.config.launched import is_fsdp, is_sharded
from alignment.config.methods import methods_where
from alignment.config.schema import AdapterKeys, ModelKeys
from alignment.config.tasks import CAUSAL, CLASSIFIER, MASKED, SEQ2SEQ
from alignment.errors import ModelError, named_inputs
from alignment.policy.adapter_files import read_adapter_config
from alignment.policy.adapter_fit import require_fit
from alignment.policy.adapters import (
    attach_adapter,
    continue_adapter,
    copies_in_float32,
    require_same_shape,
    require_task_of_adapter,
    require_top_layers,
)
from alignment.policy.checkpointing import layer_classes
from alignment.policy.dtypes import model_dtype
from alignment.policy.four_bits import quantized_widths, require_exact
from alignment.policy.inference import best_device
from alignment.policy.lora import fuse_lora
from alignment.policy.methods import adapter_config, completed, method_of
from alignment.policy.model_files import check_hub_files
from alignment.policy.model_source import ModelSource, cannot_load, model_of
from alignment.policy.placing import placed_config
from alignment.policy.quantised import (
    compute_as_configured,
    quantization,
    require_as_stored,
    require_own_bits,
    require_quantisable,
    require_quantised,
    require_trainable,
    require_whole_copies,
)
from alignment.policy.tasks import (
    auto_class,
    is_classifier,
    policy_task,
    require_keys_of_encoders,
    require_task,
    task_for,
    task_of_class,
)
from alignment.policy.weight_files import (
    report_left_to_us,
    require_complete,
    require_described,
    require_finite,
    require_floats,
    tensor_shapes,
)
from alignment.rollout.context import is_encoder_decoder


def load_causal_lm(keys: ModelKeys, *, trainable: bool, peft: AdapterKeys | None = None) -> Any:
    """Load a language model, with its adapter where `model_name_or_path` is one.

    Args:
        keys: which model and how it is held.
        trainable: whether weights will change: the adapter's, or all of them, as `peft_method` decides.
        peft: what trains; None: everything. An adapter that exists already is continued.

    Returns: a PreTrainedModel, or a PeftModel whose adapter is named `default`.
    Raises: ModelError.
    """
    return load_model(CAUSAL, keys, trainable=trainable, peft=peft)


def load_policy(recipe: Any, *, trainable: bool, peft: AdapterKeys | None = None) -> Any:
    """Load the language model of a recipe, which is an encoder-decoder model where the stage takes those.

    Arguments and errors as `load_causal_lm`.
    """
    return load_model(task_of(recipe), recipe, trainable=trainable, peft=peft)


def load_sequence_classifier(
    keys: ModelKeys, *, trainable: bool, peft: AdapterKeys | None = None, pad_token_id: int | None = None
) -> Any:
    """Load a model with one scalar output, for rewards; arguments as `load_causal_lm`.

    A reward adapter is continued or used as it is. On a language model's adapter a new one of the same shape is put
    on the same base, starting from its weights, with a new `score` head. The head's first weights come from torch's
    global generator: seed it first. `pad_token_id` goes to the configuration; plain transformers reads the score at
    the last token that is not padding, so a pad token that is also EOS moves it one token to the left.
    """
    return load_model(CLASSIFIER, keys, trainable=trainable, peft=peft, pad_token_id=pad_token_id)


def load_model(
    task: str, keys: ModelKeys, *, trainable: bool, peft: AdapterKeys | None = None, pad_token_id: int | None = None
) -> Any:
    """Load a model for a task of `alignment.config.tasks`; arguments as `load_causal_lm`."""
    cls = auto_class(task)
    source = model_of(keys)
    full = trainable and (peft is None or peft.method.trains_base)
    require_method(source, keys, trainable, peft, task=task)
    whole = _whole(source, keys, trainable, peft)
    model = load_base(cls, source.base, keys, full=full, whole=whole, **_head(cls, pad_token_id))
    if trainable and not full:
        for parameter in model.parameters():
            parameter.requires_grad_(False)
    if source.adapter is not None:
        model = continue_adapter(model, source.adapter, source.base, task=task, trainable=trainable)
    elif trainable and peft is not None and peft.method.has_adapter:
        model = attach_adapter(model, peft, task=task)
    return fuse_lora(copies_in_float32(model)) if trainable else model


def task_of(recipe: Any) -> str:
    """Return the task of a recipe's stage with its model: an encoder-decoder model has another than a decoder.

    Raises: ModelError if the model's configuration cannot be read.
    """
    if not recipe.STAGE.encoder_decoders or recipe.task != CAUSAL:
        return str(recipe.task)
    return task_for(recipe, config_of(recipe))


@named_inputs()
def require_model(recipe: Any) -> None:
    """Refuse a model or adapter that a training recipe names and cannot train, before a run's folder is made.

    Raises: ModelError or LineageError, with the exit code of a recipe's faults.
    """
    task = task_of(recipe)
    require_loadable(recipe, trainable=True, peft=recipe, task=task)
    source = model_of(recipe)
    places_adapter = source.adapter is None and recipe.method.has_adapter
    if not places_adapter and not is_fsdp():
        return
    model = _without_weights(auto_class(task), source.base, recipe)
    if is_fsdp():
        _require_separate_embeddings(model, source.base)
    if places_adapter:
        placed_config(model, recipe, task=task)


def _require_separate_embeddings(model: Any, place: str) -> None:
    """Refuse FSDP2 for a model whose embeddings lie in several groups of weights.

    BERT has them in a class at which it is split, and beside an output bias of two names; encoder and decoder share
    them. FSDP2 cannot split weights twice.

    Raises: ModelError.
    """
    embeddings, classes = model.get_input_embeddings(), layer_classes(model)
    within = (each for each in model.modules() if type(each).__name__ in classes)
    shared = any(inner is embeddings for each in within for inner in each.modules())
    if shared or is_encoder_decoder(model.config):
        raise ModelError(
            f"FSDP2 cannot split {place}, whose embeddings belong to several of its parts; launch with data "
            "parallelism (launch/accelerate/ddp.yaml) instead."
        )


def require_loadable(keys: ModelKeys, *, trainable: bool, peft: AdapterKeys | None, task: str = CAUSAL) -> None:
    """Refuse what `load_causal_lm` or `load_sequence_classifier` refuses of a model before its weights are read.

    Raises: ModelError.
    """
    source = model_of(keys)
    require_method(source, keys, trainable, peft, task=task)
    cls = auto_class(task)
    revision = keys.model_revision if not Path(source.base).is_dir() else "main"
    try:
        described = _described(cls, source.base, keys, revision, **_head(cls, None))
    except ModelError:
        raise
    except Exception as error:
        raise cannot_load(source.base, error) from error
    folders = [Path(path) for path in (source.adapter, source.base) if path is not None and Path(path).is_dir()]
    if trainable:
        require_trainable(described, peft, source.base)
    quantised = getattr(described, "quantization_config", None) is not None
    if len(folders) == 2 and not quantised:
        require_fit(folders[0], source.base, tensor_shapes(folders[1]))
    if keys.bits and not quantised:
        with torch.device("meta"):
            model = cls.from_config(described, trust_remote_code=keys.trust_remote_code)
        require_quantisable(model, keys, source.base)
        if trainable and peft is not None and source.adapter is None:
            require_whole_copies(model, keys, peft)
        if keys.load_in_4bit and best_device().type == "cpu":
            widths = quantized_widths(model, keys, _whole(source, keys, trainable, peft))
            require_exact(widths, source.base, keys.bnb_4bit_quant_type)


def require_method(
    source: ModelSource, keys: ModelKeys, trainable: bool, peft: AdapterKeys | None, *, task: str = CAUSAL
) -> None:
    """Refuse a use of the model, an adapter or one in 4 or 8 bits, that it does not allow; before its weights are read.

    Raises: ModelError.
    """
    full = trainable and (peft is None or peft.method.trains_base)
    if trainable and (peft is None or not peft.method.has_adapter) and source.adapter is not None:
        given = peft.peft_method if peft else "full"
        raise ModelError(
            f"{source.adapter} is an adapter, but peft_method is {given}; merge it first (alignment merge "
            f"{source.adapter} OUT) and name OUT as model_name_or_path, or train an adapter."
        )
    bits = keys.bits
    if bits and (full or (trainable and peft is not None and not peft.method.allows_bits(bits))):
        others = methods_where(lambda method: method.allows_bits(bits))
        raise ModelError(
            f"load_in_{bits}bit holds the base in {bits} bits, which cannot train; set peft_method to {others}."
        )
    if source.adapter is not None:
        config = read_adapter_config(source.adapter)
        if Path(source.adapter).is_dir():
            require_floats(Path(source.adapter))
        if task != CLASSIFIER:
            require_task_of_adapter(config, source.adapter, task)
        if trainable and peft is not None:
            require_same_shape(config, peft, source.adapter)
            if peft.lora_layers is not None:
                require_top_layers(config, peft.lora_layers, source.adapter, _text_config(source, keys))
    elif trainable and peft is not None and peft.method.family == "soft_prompts" and task in (MASKED, SEQ2SEQ):
        raise ModelError(
            f"peft_method {peft.peft_method} puts a soft prompt before the inputs of a decoder-only model, and "
            f"{source.base} is none; use peft_method lora."
        )
    if task == SEQ2SEQ:
        require_keys_of_encoders(keys, source.base)
    require_room(source, keys, peft)


def require_room(source: ModelSource, keys: ModelKeys, peft: AdapterKeys | None) -> None:
    """Refuse a soft prompt that leaves the model's context no token for a prompt.

    Args:
        keys: where they have `max_new_tokens`, an answer takes as many tokens of the context.

    Raises: ModelError.
    """
    if source.adapter is not None:
        taken = getattr(read_adapter_config(source.adapter), "num_virtual_tokens", None) or 0
    else:
        taken = peft.fields().get("num_virtual_tokens", 0) if peft is not None else 0
    if not taken:
        return
    context = getattr(_text_config(source, keys), "max_position_embeddings", None)
    answer = int(getattr(keys, "max_new_tokens", 0))
    if context is None or taken + answer < context:
        return
    less = f", max_new_tokens is {answer}," if answer else ""
    raise ModelError(
        f"num_virtual_tokens is {taken}{less} and the model's context has {context} tokens, which leaves none for a "
        f"prompt; use a shorter soft prompt{', or lower max_new_tokens' if answer else ''}."
    )


def config_of(keys: ModelKeys) -> Any:
    """Return the configuration of the model, or of an adapter's base.

    Raises: ModelError if it cannot be read.
    """
    return _config(model_of(keys), keys)


def _text_config(source: ModelSource, keys: ModelKeys) -> Any:
    """Return the configuration of the base's text model.

    Raises: ModelError if it cannot be read.
    """
    return _config(source, keys).get_text_config()


def _config(source: ModelSource, keys: ModelKeys) -> Any:
    revision = keys.model_revision if not Path(source.base).is_dir() else "main"
    check_hub_files(source.base, revision)
    try:
        return model_config(source.base, keys, revision)
    except Exception as error:
        raise cannot_load(source.base, error) from error


def _whole(source: ModelSource, keys: ModelKeys, trainable: bool, peft: AdapterKeys | None) -> list[str]:
    """Return `whole_modules` of a model with one adapter."""
    new = [peft] if trainable and peft is not None and source.adapter is None else []
    return whole_modules(source.base, keys, [source.adapter] if source.adapter else [], new)


def whole_modules(base: str, keys: ModelKeys, adapters: Sequence[str], new: Sequence[AdapterKeys]) -> list[str]:
    """Return the modules that adapters train as copies of the base's, which must not be quantised.

    Args:
        adapters: folders of existing ones. new: keys of those that are about to be made.
    """
    if not keys.bits:
        return []
    configs = [read_adapter_config(adapter) for adapter in adapters]
    copying = [each for each in new if each.method.copies_modules]
    if copying:
        task = policy_task(model_config(base, keys, keys.model_revision if not Path(base).is_dir() else "main"))
        model = _without_weights(auto_class(task), base, keys)
        configs += [completed(adapter_config(each, task=task), model) for each in copying]
    return sorted({name for config in configs if method_of(config).copies_modules for name in config.target_modules})


def _without_weights(cls: Any, base: str, keys: ModelKeys) -> Any:
    """Build a model of an auto class on the meta device."""
    config = model_config(base, keys, keys.model_revision if not Path(base).is_dir() else "main", **_head(cls, None))
    with torch.device("meta"):
        return cls.from_config(config, trust_remote_code=keys.trust_remote_code)


def _head(cls: Any, pad_token_id: int | None) -> dict[str, Any]:
    if cls is not AutoModelForSequenceClassification:
        return {}
    return {"num_labels": 1} if pad_token_id is None else {"num_labels": 1, "pad_token_id": pad_token_id}


def load_base(
    cls: Any, base: str, keys: ModelKeys, *, full: bool = False, whole: Sequence[str] = (), **config: Any
) -> Any:
    """Load a whole model with an auto class.

    Args:
        full: all its weights will train. whole: modules that are not quantised.
    """
    options: dict[str, Any] = {
        "dtype": model_dtype(base, keys, full=full),
        "revision": keys.model_revision if not Path(base).is_dir() else "main",
        "trust_remote_code": keys.trust_remote_code,
        "use_safetensors": True,
        "attn_implementation": keys.attn_implementation,  # None: the library's choice, never the folder's
    }
    if torch.cuda.is_available() and not is_sharded():
        options["device_map"] = {"": PartialState().device}
    classifies = cls is AutoModelForSequenceClassification
    try:
        described = _described(cls, base, keys, options["revision"], **config)
        stored = getattr(described, "quantization_config", None) is not None
        if keys.bits and not stored:
            options["quantization_config"] = quantization(keys, options["dtype"], whole)
        with report_left_to_us():
            model, info = cls.from_pretrained(
                base, config=described, **options, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except (torch.cuda.OutOfMemoryError, ModelError):
        raise
    except Exception as error:  # a library may raise any error on damaged files
        raise cannot_load(base, error) from error
    require_complete(info, base, new_head=classifies and not is_classifier(described))
    if not is_sharded():
        require_finite(dict(model.named_parameters()), base)
    if keys.bits and not whole:
        require_quantised(model, keys, base)
    return compute_as_configured(model, base, stored=stored)


def _described(cls: Any, base: str, keys: ModelKeys, revision: str, **config: Any) -> Any:
    """Return a model's configuration, compared with its kind and with the headers of its weights' files."""
    check_hub_files(base, revision)
    described = model_config(base, keys, revision, **config)
    require_task(described, base, task_of_class(cls))
    require_own_bits(keys, described, base)
    if Path(base).is_dir() and not getattr(keys, "from_scratch", False):
        shapes = tensor_shapes(Path(base))
        require_floats(Path(base), described)
        require_as_stored(Path(base), described)
        require_described(cls, described, Path(base), shapes, trust_remote_code=keys.trust_remote_code)
    return described


def model_config(base: str, keys: ModelKeys, revision: str, **changes: Any) -> Any:
    """Read a model's configuration; the recipe chooses how attention and experts are computed."""
    config = AutoConfig.from_pretrained(base, revision=revision, trust_remote_code=keys.trust_remote_code, **changes)
    config._attn_implementation = keys.attn_implementation
    config._experts_implementation = None
    return config
