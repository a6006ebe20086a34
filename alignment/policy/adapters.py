"""LoRA and DoRA adapters on a base: new ones, and those that an earlier stage left."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import ModulesToSaveWrapper, load_peft_weights

from alignment.config.schema import AdapterKeys
from alignment.errors import ModelError

# peft 0.21 and trl 1.16 ask transformers 5.23 by the old name; nobody who runs this can do anything about it.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)

HEADS: dict[str, list[str]] = {"CAUSAL_LM": [], "SEQ_CLS": ["score"]}  # modules that a task trains beside the adapter


def adapter_config(keys: AdapterKeys, *, task: str) -> LoraConfig:
    """PEFT's configuration of a new adapter; `task` is CAUSAL_LM or SEQ_CLS."""
    return LoraConfig(
        task_type=task,
        r=keys.lora_r,
        lora_alpha=keys.lora_alpha,
        lora_dropout=keys.lora_dropout,
        target_modules=keys.lora_target_modules,
        modules_to_save=[*(keys.lora_modules_to_save or []), *HEADS[task]] or None,
        use_rslora=keys.use_rslora,
        use_dora=keys.peft_method == "dora",
    )


def copies_in_float32(model: Any) -> Any:
    """Hold the modules that train whole beside an adapter, a head too, in float32, as PEFT holds LoRA's matrices.

    In bfloat16 updates below 1/256 of a weight are lost, and ZeRO-3 cannot train weights of two dtypes. What goes into
    such a module follows; what comes out is the model's dtype again, but for logits and scores.
    """
    wrappers = {name: module for name, module in model.named_modules() if isinstance(module, ModulesToSaveWrapper)}
    for name, wrapper in wrappers.items():
        dtype = next(wrapper.original_module.parameters()).dtype
        if dtype == torch.float32:
            continue
        is_last = name.rpartition(".")[2] in HEADS["SEQ_CLS"] or wrapper is model.get_output_embeddings()
        for copy in wrapper.modules_to_save.values():
            copy.float()
            copy.register_forward_pre_hook(_floats_in_own_dtype)
            if not is_last:
                copy.register_forward_hook(lambda _module, _inputs, output, dtype=dtype: output.to(dtype))
    return model


def _floats_in_own_dtype(module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    own = next(module.parameters()).dtype
    return tuple(x.to(own) if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs)


def attach_adapter(model: Any, keys: AdapterKeys, *, task: str) -> Any:
    """Put a new adapter on `model`; its function is the base's until it trains."""
    try:
        return get_peft_model(model, adapter_config(keys, task=task))
    except ValueError as error:
        raise ModelError(f"no adapter can be put on the model: {error}") from error


def continue_adapter(
    model: Any, adapter: str, base: str, *, task: str, trainable: bool, keys: AdapterKeys | None = None
) -> Any:
    """Put an earlier stage's adapter on `model`, to train on or to use.

    Where the task differs (a reward model on a fine-tuned policy), a new adapter of the same shape starts from its
    weights, with a new head.

    Raises: ModelError where its shapes are not the base's, or the recipe names another shape than it has.
    """
    config = PeftConfig.from_pretrained(adapter)
    if trainable and keys is not None:
        _require_same_shape(config, keys, adapter)
    try:
        if config.task_type == task:
            return PeftModel.from_pretrained(model, adapter, is_trainable=trainable)
        return _start_from(model, adapter, config, task=task, trainable=trainable)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(
            f"adapter {adapter} does not fit the base {base}: it was trained on another model "
            f"({str(error).strip().splitlines()[0]})"
        ) from error


@contextmanager
def weights_kept(model: Any) -> Iterator[None]:
    """Keep the trained weights of a 4-bit model as they are while a trainer is built around it.

    TRL rounds them to bfloat16, in which updates below 1/256 of a weight are lost, and a policy that continues an
    adapter no longer equals the reference copied from it: DPO would not begin at ln 2.
    """
    kept = {}
    if getattr(model, "is_loaded_in_4bit", False):
        kept = {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}
    yield
    for name, parameter in model.named_parameters():
        if name in kept:
            parameter.data = kept[name]


def _start_from(model: Any, adapter: str, config: Any, *, task: str, trainable: bool) -> Any:
    """A new adapter for another task, with the weights that an existing one has."""
    modules = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    saved = [name for name in config.modules_to_save or [] if name in modules]  # the other task has no LM head, say
    config.task_type, config.inference_mode = task, not trainable
    config.modules_to_save = [*saved, *HEADS[task]] or None
    config.base_model_name_or_path = None  # peft fills in the model's own
    wrapped = get_peft_model(model, config)
    own = get_peft_model_state_dict(wrapped)
    given = load_peft_weights(adapter, device="cpu")
    unknown = [key for key in given if key not in own and ".lora_" in key]
    if unknown:
        raise ValueError(f"the base has no place for {unknown[0]}")
    set_peft_model_state_dict(wrapped, own | {key: value for key, value in given.items() if key in own})
    return wrapped


def _require_same_shape(config: Any, keys: AdapterKeys, adapter: str) -> None:
    """Refuse keys that the recipe gives and the existing adapter contradicts; keys left out follow the adapter."""
    has: dict[str, Any] = {
        "peft_method": "dora" if config.use_dora else "lora",
        "lora_r": config.r,
        "lora_alpha": config.lora_alpha,
        "use_rslora": config.use_rslora,
    }
    wrong = [
        f"{key} is {value} in the adapter, {getattr(keys, key)} in the recipe"
        for key, value in has.items()
        if key in keys.model_fields_set and getattr(keys, key) != value
    ]
    if wrong:
        raise ModelError(
            f"adapter {adapter} is continued and keeps its shape, but {'; '.join(wrong)}. Leave these keys out, or "
            f"merge it (alignment merge {Path(adapter)} OUT) and start a new adapter on OUT."
        )
