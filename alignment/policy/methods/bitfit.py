"""BitFit, https://arxiv.org/abs/2106.10199: only biases train.

Each bias of the model gets a change of its own beside the base, b + Δb. Where all of them are biases of linear layers,
the adapter is one of PEFT's type `BEFT`, which plain PEFT loads; biases of normalisations and of GPT-2's `Conv1D` need
the type `BITFIT` of this module, which its import registers with PEFT.

Many architectures have no biases (Llama, Mistral, Gemma). New ones can be added to their linear layers; these cannot be
merged, as the architecture has no place for them.
"""

import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from peft import BeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from alignment.config.own_methods import BitfitKeys
from alignment.config.schema import AdapterKeys
from alignment.errors import ModelError
from alignment.policy.methods.generic import Generic
from alignment.policy.methods.peft_types import register
from alignment.policy.model_files import Fault

# peft 0.21 warns of each new bias that it cannot be merged; `alignment merge` refuses it.
warnings.filterwarnings("ignore", message="Detected that the base layer has no bias term", category=UserWarning)


@dataclass
class BitfitConfig(BeftConfig):
    """Configuration of biases of any module; the keys are those of PEFT's `BeftConfig`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PEFT_TYPE


class BiasLayer(nn.Module, BaseTunerLayer):
    """A module with a bias, and the changes of it by adapters' names."""

    adapter_layer_names = ("bitfit_bias",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BitfitConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bitfit_bias = nn.ParameterDict()
        self.merged_adapters: list[str] = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    @property
    def own_bias(self) -> Tensor:
        """The base's bias."""
        bias: Tensor = BaseTunerLayer.get_base_layer(self).bias
        return bias

    def update_layer(self, adapter_name: str, config: BitfitConfig) -> None:
        """Add an adapter."""
        start = torch.zeros_like if config.init_weights else torch.randn_like
        self.bitfit_bias[adapter_name] = nn.Parameter(start(self.own_bias))
        BaseTunerLayer.set_adapter(self, self._active_adapter, inference_mode=config.inference_mode)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run the module, and add the active adapters' changes to its output: it ends with adding its bias."""
        out: Tensor = self.base_layer(*args, **kwargs)
        active = self._active_adapter
        names = [active] if isinstance(active, str) else active
        if self._disable_adapters or self.merged_adapters:
            return out
        for name in names:
            if name in self.bitfit_bias:
                out = (out + self.bitfit_bias[name]).to(out.dtype)
        return out

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add changes to the base's bias."""
        active = self._active_adapter
        for name in adapter_names or ([active] if isinstance(active, str) else active):
            if name in self.bitfit_bias and name not in self.merged_adapters:
                self.own_bias.data = (self.own_bias.data + self.bitfit_bias[name].data).to(self.own_bias.dtype)
                self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Subtract what was merged."""
        while self.merged_adapters:
            change = self.bitfit_bias[self.merged_adapters.pop()].data
            self.own_bias.data = (self.own_bias.data - change).to(self.own_bias.dtype)


class BitfitModel(BaseTuner):
    """A model with changes of biases."""

    prefix = "bitfit_"
    tuner_layer_cls = BiasLayer
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def _create_and_replace(
        self, config: Any, adapter_name: str, target: Any, target_name: str, parent: Any, current_key: str, **_: Any
    ) -> None:
        if isinstance(target, BiasLayer):
            target.update_layer(adapter_name, config)
            return
        if getattr(target, "bias", None) is None:
            raise ValueError(f"{current_key} has no bias")
        layer = BiasLayer(target, adapter_name, config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)


PEFT_TYPE, PREFIX = register("bitfit", BitfitConfig, BitfitModel), BitfitModel.prefix
TYPES = (PEFT_TYPE, "BEFT")


def new_config(keys: AdapterKeys, *, task: str, modules_to_save: list[str] | None) -> BeftConfig:
    """Return the configuration of a new adapter; the model decides which modules have biases."""
    config = BeftConfig(task_type=task, modules_to_save=modules_to_save)
    config.complete = partial(_complete, BitfitKeys(**keys.fields()))
    return config


def _complete(keys: BitfitKeys, config: BeftConfig, model: nn.Module) -> BeftConfig:
    kept = {key: getattr(config, key) for key in ("task_type", "modules_to_save", "inference_mode")}
    return bitfit_config(model, **asdict(keys), **kept)


def recipe_keys(config: BeftConfig) -> dict[str, Any]:
    """Return the recipe keys that an existing adapter determines."""
    return {"peft_method": "bitfit"}


def faults(found: dict[str, Any]) -> Iterator[Fault]:
    """Yield the keys of a saved configuration that have impossible values."""
    yield from Generic("beft").faults({**found, "peft_type": "BEFT"})


def bitfit_config(model: nn.Module, *, new_biases: bool = False, **options: Any) -> BeftConfig:
    """Return the configuration of an adapter that trains the biases of `model`; options: of the configuration.

    Raises: ModelError if the model has no biases and gets none.
    """
    heads = {id(module) for module in _output_layers(model)}
    own = {name: module for name, module in model.named_modules() if id(module) not in heads}
    linear = [name for name, module in own.items() if isinstance(module, nn.Linear)]
    biased = [name for name, module in own.items() if isinstance(getattr(module, "bias", None), nn.Parameter)]
    if new_biases:
        return BeftConfig(target_modules=_shortest(linear, list(own)), **options)
    if not biased:
        raise ModelError(
            f"{type(model).__name__} has no biases, so bitfit has nothing to train; set peft_config: "
            "{new_biases: true} to add biases to its linear layers, or use another peft_method."
        )
    kind = BeftConfig if set(biased) <= set(linear) else BitfitConfig
    return kind(target_modules=_shortest(biased, list(own)), **options)


def _output_layers(model: Any) -> list[Any]:
    return [layer for layer in (model.get_output_embeddings(), getattr(model, "score", None)) if layer is not None]


def _shortest(chosen: list[str], every: list[str]) -> list[str]:
    """Return the last parts of the names if they select the same modules, else the names."""
    ends = sorted({name.rpartition(".")[2] for name in chosen})
    same = {name for name in every if name.rpartition(".")[2] in ends} == set(chosen)
    return ends if same else sorted(chosen)
