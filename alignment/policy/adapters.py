"""Adapters on a base: new ones, and those that an earlier stage saved."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.utils import ModulesToSaveWrapper, load_peft_weights

from alignment.config.schema import AdapterKeys
from alignment.config.tasks import CLASSIFIER
from alignment.errors import ModelError, first_line
from alignment.policy.adapter_files import read_adapter_config
from alignment.policy.methods import HEADS, is_of_adapter, reading_family
from alignment.policy.methods.indices import require_indices
from alignment.policy.model_files import ADAPTER_CONFIG
from alignment.policy.patterns import require_patterns
from alignment.policy.placing import module_names, placed_config
from alignment.policy.prompt_models import continue_prompt, new_prompt
from alignment.policy.targets import chosen_layers, require_no_other_layer
from alignment.policy.tasks import INSTEAD
from alignment.policy.weight_files import ADAPTER, listed, require_finite, require_floats, shapes_in

# peft 0.21 and trl 1.16 use an old name of transformers 5.23; the user cannot change that.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
# `alignment merge` unties the embeddings that peft warns of, and compares the merged model's logits with the adapter's.
warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`", category=UserWarning)


COPYING = (ModulesToSaveWrapper, LNTuningLayer)  # they hold copies of the base's modules


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Silence what PEFT warns of while it builds adapters that are meant so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Unsupported layer type", category=UserWarning)  # norms, of LN tuning
        warnings.filterwarnings("ignore", message="lora with eva init", category=UserWarning)  # of meta tensors
        warnings.filterwarnings("ignore", message="Detected that the base layer has no bias", category=UserWarning)
        yield


def copies_in_float32(model: Any) -> Any:
    """Hold in float32 the modules that train whole beside an adapter, heads included, as PEFT holds LoRA's matrices.

    In bfloat16 updates below 1/256 of a weight are lost, and ZeRO-3 cannot train weights of two dtypes. The inputs of
    such a module are cast to float32, its outputs to the model's dtype, except logits and scores.
    """
    wrappers = {name: module for name, module in model.named_modules() if isinstance(module, COPYING)}
    for name, wrapper in wrappers.items():
        saved = isinstance(wrapper, ModulesToSaveWrapper)
        dtype = next((wrapper.original_module if saved else wrapper.base_layer).parameters()).dtype
        if dtype == torch.float32:
            continue
        is_last = name.rpartition(".")[2] in HEADS["SEQ_CLS"] or wrapper is model.get_output_embeddings()
        for copy in (wrapper.modules_to_save if saved else wrapper.ln_tuning_layers).values():
            copy.float()
            copy.register_forward_pre_hook(_floats_in_own_dtype)
            if not is_last:
                copy.register_forward_hook(lambda _module, _inputs, output, dtype=dtype: output.to(dtype))
    return model


def _floats_in_own_dtype(module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    own = next(module.parameters()).dtype
    return tuple(x.to(own) if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs)


def attach_adapter(model: Any, keys: AdapterKeys, *, task: str) -> Any:
    """Put a new adapter on `model`; the function stays the base's until training."""
    config, chosen = placed_config(model, keys, task=task)
    try:
        with expected_warnings():
            wrapped = new_prompt(model, config) if config.is_prompt_learning else get_peft_model(model, config)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"no adapter can be put on the model: {first_line(error)}") from error
    require_no_other_layer(wrapped, chosen, config)
    return wrapped


def continue_adapter(model: Any, adapter: str, base: str, *, task: str, trainable: bool) -> Any:
    """Put an earlier stage's adapter on `model`, to continue its training or to use it.

    If the task differs (a reward model on a fine-tuned policy), a new adapter of the same shape starts from its
    weights, with a new head.

    Raises: ModelError if its shapes differ from the base's, tensors are missing or left over, or it is a reward model's
        and a policy is needed.
    """
    config = read_adapter_config(adapter)
    if task != CLASSIFIER:
        require_task_of_adapter(config, adapter, task)
    require_patterns(config, module_names(model), f"{adapter}/{ADAPTER_CONFIG}")
    same = config.task_type == task
    if Path(adapter).is_dir():
        require_floats(Path(adapter))
    try:
        with expected_warnings(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys", category=UserWarning)
            if config.is_prompt_learning:
                wrapped = continue_prompt(model, adapter, config, task=task, trainable=trainable, heads=HEADS[task])
            elif same:
                wrapped = PeftModel.from_pretrained(model, adapter, config=config, is_trainable=trainable)
            else:
                wrapped = _start_from(model, adapter, config, task=task, trainable=trainable)
    except ModelError:
        raise
    except KeyError as error:  # peft looks for the tensors of modules that it trains whole
        raise _lacks(adapter, map(str, error.args)) from error
    except Exception as error:  # PEFT raises many kinds on an adapter from elsewhere
        raise ModelError(
            f"adapter {adapter} does not fit the base {base}: it was trained on another model, or its "
            f"{ADAPTER_CONFIG} was changed ({_reason(error)})"
        ) from error
    _require_all_tensors(wrapped, adapter, new_head=not same)
    require_indices(wrapped, adapter)
    return wrapped


def require_task_of_adapter(config: Any, adapter: str, task: str) -> None:
    """Refuse an adapter of another kind of model than a language model's of `task`; one without a task may be of any.

    Raises: ModelError.
    """
    if config.task_type not in (None, task, CLASSIFIER):
        others = "name the adapter of such a model, or merge it (alignment merge) and name the merged model"
        raise ModelError(
            f"{adapter} is an adapter for {config.task_type}, and one for {task} is needed here; "
            f"{INSTEAD.get(config.task_type, others)}."
        )
    if config.task_type == CLASSIFIER:
        raise ModelError(
            f"{adapter} is a reward model's adapter (task_type SEQ_CLS), and a policy is needed here; name the run of "
            "an SFT, DPO or PPO stage."
        )


def _require_all_tensors(wrapped: Any, adapter: str, *, new_head: bool) -> None:
    """Refuse an adapter with missing tensors, which would be random, or with left-over ones.

    Args:
        new_head: whether the adapter was for another task, so that modules that it trained whole may differ.
    """
    held = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    local = Path(adapter).is_dir()
    own, given = (
        set(held),
        set(shapes_in(Path(adapter, ADAPTER)) if local else load_peft_weights(adapter, device="cpu")),
    )
    heads = {name for name in own | given if any(part in HEADS["SEQ_CLS"] for part in name.split("."))}
    whole = {name for name in own | given if not is_of_adapter(name)} if new_head else set()
    missing = own - given - whole - (heads if new_head else set())
    if missing:
        raise _lacks(adapter, missing)
    require_finite(held, adapter)
    left = given - own - whole - set(wrapped.base_model.model.state_dict()) - set(wrapped.state_dict())
    if left:
        raise ModelError(
            f"adapter {adapter} holds {listed(left)}, which its {ADAPTER_CONFIG} has no place for; put its own "
            "files back."
        )


def _lacks(adapter: str, names: Iterable[str]) -> ModelError:
    return ModelError(
        f"adapter {adapter} lacks {listed(names)}, which would be random numbers; copy or train it again."
    )


def _reason(error: Exception) -> str:
    """Return the line of a library's error that names a tensor, else its first line."""
    named = next((line for line in str(error).splitlines() if "size mismatch" in line), None)
    return first_line(named or error)


@contextmanager
def preserve_dtype(model: Any) -> Iterator[Callable[[], None]]:
    """Preserve the dtype of a quantised model's trained weights while a TRL trainer is built; yields what restores it.

    TRL casts them to bfloat16. Updates below 1/256 of a weight would be lost, and a policy that continues an adapter
    would differ from the reference copied from it, so DPO's loss would not start at ln 2.
    """
    kept = {}
    if getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False):
        kept = {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}

    def restore() -> None:
        for name, parameter in model.named_parameters():
            if name in kept:
                parameter.data = kept[name]

    yield restore
    restore()


def _start_from(model: Any, adapter: str, config: Any, *, task: str, trainable: bool) -> Any:
    """Make a new adapter for another task with the weights of an existing one."""
    modules = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    saved = [name for name in config.modules_to_save or [] if name in modules]  # the other task may have no LM head
    config.task_type, config.inference_mode = task, not trainable
    config.modules_to_save = [*saved, *HEADS[task]] or None
    config.base_model_name_or_path = None  # PEFT sets the model's own
    wrapped = get_peft_model(model, config)
    own = get_peft_model_state_dict(wrapped)
    given = load_peft_weights(adapter, device="cpu")
    unknown = [key for key in given if key not in own and is_of_adapter(key)]
    if unknown:
        raise ValueError(f"the base has no place for {unknown[0]}")
    set_peft_model_state_dict(wrapped, own | {key: value for key, value in given.items() if key in own})
    return wrapped


def require_same_shape(config: Any, keys: AdapterKeys, adapter: str) -> None:
    """Refuse recipe keys that the existing adapter contradicts; keys that the recipe leaves out follow the adapter.

    Raises: ModelError.
    """
    family = reading_family(keys, config.peft_type)
    assert family is not None
    has: dict[str, Any] = family.recipe_keys(config)
    wrong = [
        f"{key} is {value} in the adapter, {getattr(keys, key)} in the recipe"
        for key, value in has.items()
        if key in keys.model_fields_set and getattr(keys, key) != value
    ]
    wrong += [
        f"{field} is {getattr(config, field)} in the adapter, {value} in the recipe's peft_config"
        for field, value in keys.peft_config.items()
        if isinstance(value, int | float) and getattr(config, field, None) not in (None, value)
    ]
    if wrong:
        raise _contradicted(adapter, "; ".join(wrong))


def require_top_layers(config: Any, lora_layers: int, adapter: str, text: Any) -> None:
    """Refuse a recipe's `lora_layers` that an existing adapter contradicts; text: the configuration of the base's text.

    Raises: ModelError.
    """
    depth = text.num_hidden_layers
    layers = chosen_layers(config) or {*range(depth)}  # PEFT shortens a list of all layers to the names they share
    if layers != {*range(depth - lora_layers, depth)}:
        found = ", ".join(map(str, sorted(layers)[:12])) + (", ..." if len(layers) > 12 else "")
        wrong = f"it is on layers {found} of 0 to {depth - 1}, and lora_layers is {lora_layers}"
        raise _contradicted(adapter, wrong)


def _contradicted(adapter: str, wrong: str) -> ModelError:
    return ModelError(
        f"adapter {adapter} is continued and keeps its shape, but {wrong}. Leave these keys out, or merge it "
        f"(alignment merge {Path(adapter)} OUT) and start a new adapter on OUT."
    )
