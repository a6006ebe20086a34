"""An adapter merged into its base one module at a time: the base is mapped from its files, never held whole.

The arithmetic is PEFT's own merge in float32, module by module, and one rounding to the base's type: the weights are
those of `alignment merge`, bit for bit.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import Tensor, nn

from alignment.errors import ModelError, first_line
from alignment.hub import reach
from alignment.ops.finite import first_not_finite
from alignment.policy.adapters import continue_adapter
from alignment.policy.base import model_config
from alignment.policy.inference import best_device
from alignment.policy.mergeable import Mergeable, naming_overflow, untied
from alignment.policy.methods import HEADS
from alignment.policy.quantised import quantized_modules, rounded
from alignment.policy.tensor_files import TensorFiles
from alignment.policy.weight_files import listed, require_described, tensor_shapes

ADAPTER = "default"
WRAPPERS = (BaseTunerLayer, AuxiliaryTrainingWrapper)
OF_BASE = ("base_layer", "original_module")  # where PEFT keeps the base's own weights


@dataclass(frozen=True, slots=True)
class Streamed:
    """A base and an adapter on it whose sum is computed one module at a time."""

    adapter: Mergeable
    files: TensorFiles
    model: Any  # transformers' model with the adapter's layers; its weights are in the files
    quantized: frozenset[str]  # modules that the adapter was trained on in 4 or 8 bits
    tied: bool  # the output layer's weights are the embeddings'

    @property
    def config(self) -> Any:
        """The merged model's configuration."""
        config = self.model.config
        config.dtype, config.architectures = self.adapter.dtype, [type(self.model).__name__]
        if not self.tied and self.model.get_output_embeddings() is not None:
            config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False
        return config

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of the merged model's tensors."""
        return {name: tuple(tensor.shape) for name, tensor in self._walk(merging=False)}

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield names and merged tensors, in the type that is written; each is valid until the next, and only once.

        Raises: ModelError if one is not finite.
        """
        dtype = self.adapter.dtype
        for name, tensor in self._walk(merging=True):
            written = tensor.to(dtype).cpu()
            if first_not_finite([(name, written)]) is not None:
                raise ModelError(f"{self.adapter.run}: merged, {name} holds NaN or infinity in {dtype}.")
            yield name, written
            if name in self.files:
                self.files.forget(name)

    @torch.no_grad()
    def _walk(self, *, merging: bool) -> Iterator[tuple[str, Tensor]]:
        inside: tuple[str, ...] = ()
        output = self.model.get_output_embeddings() if self.tied else None
        for name, module in list(self.model.named_modules()):
            if name.startswith(inside) or module is output:
                continue
            if not isinstance(module, WRAPPERS):
                yield from self._plain(name, module, merging=merging)
                continue
            inside += (f"{name}.",)
            with naming_overflow(self.adapter.run):
                whole = self._merged(name, module) if merging else _like_merged(module)
            yield from ((f"{name}.{key}", tensor.detach()) for key, tensor in whole.state_dict(keep_vars=True).items())
            if merging:
                for parameter in module.parameters():
                    parameter.data = parameter.new_empty(0)

    def _plain(self, name: str, module: nn.Module, *, merging: bool) -> Iterator[tuple[str, Tensor]]:
        own = {**module._parameters, **module._buffers}
        for key, tensor in own.items():
            if tensor is not None and key not in module._non_persistent_buffers_set:
                found = tensor.detach()
                yield (f"{name}.{key}".lstrip("."), self._as_trained(name, key, found) if merging else found)

    def _merged(self, name: str, module: Any) -> nn.Module:
        """Return a plain module in place of one of PEFT's."""
        whole: nn.Module
        if isinstance(module, ModulesToSaveWrapper):
            whole = module.modules_to_save[ADAPTER]
            return whole
        for key, parameter in module.named_parameters():
            if any(part in OF_BASE for part in key.split(".")):
                parameter.data = self._as_trained(name, key.rpartition(".")[2], parameter.data).float()
        module.to(best_device())
        if hasattr(module, "unload_and_optionally_merge_module"):
            whole = module.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
            return whole
        module.merge(safe_merge=True, adapter_names=None)
        whole = module.get_base_layer()
        return whole

    def _as_trained(self, name: str, key: str, tensor: Tensor) -> Tensor:
        """Return a weight of the base as the adapter was trained on it."""
        if key == "weight" and name in self.quantized:
            return rounded(tensor.float(), self.adapter.keys)
        return tensor


def stream(adapter: Mergeable) -> Streamed:
    """Map a base's files into memory and put the adapter on it.

    Raises: ModelError if a file is damaged, the adapter does not fit, or the base's modules are not stored under
        their own names.
    """
    folder = _folder(adapter)
    files = TensorFiles(folder)
    keys = adapter.keys
    head: dict[str, Any] = {"num_labels": 1} if adapter.classifies else {}
    config = model_config(str(folder), keys, "main", **head)
    if getattr(config, "quantization_config", None) is not None:
        raise _not_streamed(adapter, "its base is stored quantised")
    require_described(adapter.cls, config, folder, tensor_shapes(folder), trust_remote_code=keys.trust_remote_code)
    with torch.device("meta"):
        model = adapter.cls.from_config(config, trust_remote_code=keys.trust_remote_code)
    model.tie_weights()
    quantized = quantized_modules(model, keys)
    tied = _tied(model)
    _fill(model, files, adapter, tied=tied)
    wrapped = continue_adapter(
        model,
        adapter.adapter,
        adapter.source.base,
        task="SEQ_CLS" if adapter.classifies else "CAUSAL_LM",
        trainable=False,
    )
    tied = tied and _tied(untied(wrapped).get_base_model())
    if tied and isinstance(model.get_output_embeddings(), WRAPPERS):
        raise _not_streamed(adapter, "it adapts an output layer that shares the embeddings' weights")
    return Streamed(adapter, files, wrapped.get_base_model(), quantized, tied)


def _folder(adapter: Mergeable) -> Path:
    base = adapter.source.base
    if Path(base).is_dir():
        return Path(base)
    reach()
    try:
        return Path(
            snapshot_download(base, revision=adapter.keys.model_revision, allow_patterns=["*.safetensors", "*.json"])
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"the base {base} cannot be had from the Hub: {first_line(error)}") from error


def _tied(model: Any) -> bool:
    embeddings, output = model.get_input_embeddings(), model.get_output_embeddings()
    return output is not None and output is not embeddings and getattr(output, "weight", 0) is embeddings.weight


def _fill(model: Any, files: TensorFiles, adapter: Mergeable, *, tied: bool) -> None:
    """Put the files' tensors in the places of a model's on the meta device."""
    missing = []
    output = model.get_output_embeddings() if tied else None
    for name, tensor in model.state_dict().items():
        owner, _, key = name.rpartition(".")
        module = model.get_submodule(owner)
        if name in files:
            found = files.get(name)
            if found.shape != tensor.shape:
                raise ModelError(
                    f"{files.folder}: {name} has another shape than config.json describes; copy the model again."
                )
        elif adapter.classifies and owner in HEADS["SEQ_CLS"]:
            found = torch.zeros(tensor.shape)  # the adapter brings its own
        elif module is output:
            continue
        else:
            missing.append(name)
            continue
        if key in module._parameters:
            module._parameters[key] = nn.Parameter(found, requires_grad=False)
        else:
            module._buffers[key] = found
    if missing:
        raise _not_streamed(adapter, f"its base does not store {listed(missing)} under that name")
    if output is not None:
        output.weight = model.get_input_embeddings().weight


def _not_streamed(adapter: Mergeable, why: str) -> ModelError:
    return ModelError(
        f"{adapter.run} cannot be merged one layer at a time: {why}. Use alignment merge {adapter.run} OUT."
    )


def _like_merged(module: Any) -> nn.Module:
    whole: nn.Module = module.modules_to_save[ADAPTER] if isinstance(module, ModulesToSaveWrapper) else module
    while isinstance(whole, WRAPPERS):
        whole = whole.base_layer if isinstance(whole, BaseTunerLayer) else whole.original_module
    return whole
