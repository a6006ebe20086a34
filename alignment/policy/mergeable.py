"""An adapter that can be added to its base's weights: what merging and switching look for before anything loads."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import _maybe_include_all_linear_layers, check_target_module_exists
from peft.utils import ModulesToSaveWrapper, PeftType

from alignment.config.schema import ModelKeys
from alignment.config.tasks import CLASSIFIER
from alignment.data.template import Template
from alignment.errors import ModelError
from alignment.policy.adapter_files import read_adapter_config
from alignment.policy.base import config_of, model_config
from alignment.policy.dtypes import checkpoint_dtype
from alignment.policy.generation import read_generation, stopping_at
from alignment.policy.held import held_as_trained
from alignment.policy.methods import completed, method_of
from alignment.policy.model_source import ModelSource, resolve_model
from alignment.policy.quantised import held_as_stored
from alignment.policy.tasks import auto_class, policy_task
from alignment.policy.tied import untie
from alignment.policy.tokenizer import load_tokenizer
from alignment.policy.weights import weights_hash


@dataclass(frozen=True)
class Mergeable:
    """A run's adapter, its base, and how the run held the base."""

    run: str
    source: ModelSource
    config: Any  # PEFT's
    keys: ModelKeys

    @classmethod
    def find(cls, run: Path | str, *, trust_remote_code: bool) -> "Mergeable":
        """Resolve a run or adapter folder.

        Raises: ModelError if there is no adapter, it is of a method that cannot be merged, or on a base that cannot.
        """
        if not Path(run).is_dir():
            raise ModelError(f"{run}: no such folder; name a run or adapter folder.")
        source = resolve_model(str(run))
        if source.adapter is None:
            raise ModelError(f"{run} is a whole model already; there is no adapter to merge.")
        config = read_adapter_config(source.adapter)
        keys = _keys(source.adapter, trust_remote_code)
        keys = held_as_stored(keys, config_of(keys), source.base)
        why = why_not_merged(config, source.base, keys)
        if why is not None:
            raise ModelError(f"{run} is an adapter of {method_of(config).title}, which {why}.")
        return cls(str(run), source, config, keys)

    @property
    def adapter(self) -> str:
        """The adapter's folder."""
        assert self.source.adapter is not None
        return self.source.adapter

    @property
    def classifies(self) -> bool:
        """Whether it is a reward model's."""
        return self.task == CLASSIFIER

    @property
    def task(self) -> str:
        """The task of the merged model, one of `alignment.config.tasks`; an adapter without one is a policy's."""
        return str(self.config.task_type or policy_task(_shape(self.source.base, self.keys)))

    @property
    def cls(self) -> Any:
        """The auto class that loads the merged model."""
        return auto_class(self.task)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that the merged model is saved with."""
        return load_tokenizer(self.keys)

    @cached_property
    def generation(self) -> dict[str, Any]:
        """The generation config that the merged model is saved with: it stops where the template's answers stop."""
        stops = Template(self.tokenizer, None, self.keys.eos_token).stop_token_ids
        return stopping_at(stops, read_generation(self.adapter, self.source.base))

    @cached_property
    def dtype(self) -> torch.dtype:
        """The type that the merged weights are written in: the base's."""
        return checkpoint_dtype(self.source.base, self.keys)

    @cached_property
    def identity(self) -> dict[str, str]:
        """Hashes by which a merged model names its base and its adapter."""
        return {"base_sha256": weights_hash(self.source.base), "adapter_sha256": weights_hash(self.adapter)}

    def report(self) -> dict[str, Any]:
        """Return what the merged model's `merge.json` holds of base and adapter."""
        return {
            "adapter": self.adapter,
            "base": self.source.base,
            **self.identity,
            "base_weights": f"{self.keys.bits}-bit, dequantised" if self.keys.bits else "as they are",
            "dtype": str(self.dtype).removeprefix("torch."),
        }


@contextmanager
def naming_overflow(run: str) -> Iterator[None]:
    """Turn PEFT's error about a merged weight that is not finite into a message."""
    try:
        yield
    except ValueError as error:
        if "NaNs detected" not in str(error):
            raise
        raise ModelError(
            f"{run}: merged, a weight holds NaN or infinity: the adapter is damaged. Nothing was written; copy or "
            "train it again."
        ) from error


def _keys(adapter: str, trust_remote_code: bool) -> ModelKeys:
    """Return how the run held its base; for an adapter from elsewhere the base is not quantised."""
    given = {"model_name_or_path": adapter, "dtype": "float32", "trust_remote_code": trust_remote_code}
    return ModelKeys(**{**held_as_trained(adapter), **given})


def why_not_merged(config: Any, base: str, keys: ModelKeys) -> str | None:
    """Return why an adapter cannot be merged; None if it can.

    Args:
        config: PEFT's, which may not know its targets yet.
    """
    method = method_of(config)
    biased = getattr(config, "lora_bias", False)
    if method.merges and not biased:
        return None
    reason = "cannot be added to a base's weights"
    if not method.merges and not method.merges_biases:
        return reason
    model = _without_weights(base, keys)
    whole = _with_targets(config, model)
    changed = [module for name, module in model.named_modules() if check_target_module_exists(whole, name)]
    if all(getattr(module, "bias", None) is not None for module in changed):
        return None
    return f"{reason}: modules that it changes have no bias of their own{' (lora_bias)' if biased else ''}"


def changed_apart(config: Any, base: str, keys: ModelKeys) -> str | None:
    """Return the name of a module that an adapter changes apart from the one with the same, tied, weights.

    The embeddings or the output layer: a plain model of the base's configuration ties them again.

    Args:
        config: PEFT's, which may not know its targets yet.
    """
    model = _without_weights(base, keys)
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    if ends[1] is None or ends[0].weight is not ends[1].weight:
        return None
    names = [name for name, module in model.named_modules() if module in ends]
    if config.peft_type == PeftType.TRAINABLE_TOKENS or getattr(config, "trainable_token_indices", None):
        return names[0]
    whole = _with_targets(config, model)
    copied = tuple(getattr(whole, "modules_to_save", None) or ())
    return next((name for name in names if name.endswith(copied) or check_target_module_exists(whole, name)), None)


def _with_targets(config: Any, model: Any) -> Any:
    """Return a copy of a configuration that lists the modules of `all-linear`, and those that depend on the model."""
    whole = _maybe_include_all_linear_layers(completed(copy.deepcopy(config), model), model)
    if whole.target_modules is None:  # those that PEFT chooses by the architecture, within its layers
        whole.target_modules = set()
    return whole


def _without_weights(base: str, keys: ModelKeys) -> Any:
    shape = _shape(base, keys)
    with torch.device("meta"):
        return auto_class(policy_task(shape)).from_config(shape, trust_remote_code=keys.trust_remote_code)


def _shape(base: str, keys: ModelKeys) -> Any:
    return model_config(base, keys, keys.model_revision if not Path(base).is_dir() else "main")


def added_to_base(wrapped: Any) -> Any:
    """Merge a PeftModel's adapter into its base, and return the base.

    peft 0.21 merges LN tuning, which freeze uses too, and leaves the modules that train whole in their wrappers.
    """
    plain = untied(wrapped).merge_and_unload(safe_merge=True)
    kept = {name: each for name, each in plain.named_modules() if isinstance(each, ModulesToSaveWrapper)}
    for name, each in kept.items():
        plain.set_submodule(name, each.unload_and_optionally_merge_module(True, True, None))
    return plain


def untied(wrapped: Any) -> Any:
    """Untie the output layer if LoRA adapts the embeddings: the adapter is no part of the output layer."""
    base = wrapped.get_base_model()
    if isinstance(base.get_input_embeddings(), LoraLayer):
        untie(base)
    return wrapped
