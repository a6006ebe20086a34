"""Bottleneck adapters: a tuner of our own, registered with PEFT as `BOTTLENECK`.

Importing this module registers the type; then `PeftModel.from_pretrained` and `AutoPeftModel` load such adapters.

With h (tokens, d) the output of a sublayer's last projection, before the residual connection, the adapter computes
h + f(h Dᵀ + a) Uᵀ + b: a down-projection D (m, d), a nonlinearity f, an up-projection U (d, m), and a skip connection,
2md + d + m parameters (https://arxiv.org/abs/1902.00751). Houlsby's placement is after attention and
after the feed-forward network of each layer; Pfeiffer's is after the feed-forward network alone
(https://arxiv.org/abs/2005.00247). An adapter is nonlinear, so it cannot be merged into the base.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _get_in_out_features
from torch import Tensor, nn

from alignment.config.schema import AdapterKeys
from alignment.errors import ModelError
from alignment.policy.methods.generic import Generic
from alignment.policy.methods.peft_types import register
from alignment.policy.model_files import Fault

NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
    "tanh": torch.tanh,
}
PLACEMENTS = ("houlsby", "pfeiffer")
ATTENTION = re.compile(
    r".*\.(o_proj|out_proj|out_lin|(attn|attention|self_attn|self_attention)\.(c_proj|dense|wo|Wo)"
    r"|attention\.output\.dense|(SelfAttention|EncDecAttention)\.o)"
)
FEED_FORWARD = re.compile(
    r".*\.(down_proj|fc2|lin2|ffn_output|mlp\.(c_proj|Wo)|dense_4h_to_h|\d+\.output\.dense|feed_forward\.w2"
    r"|DenseReluDense\.wo)"
)


@dataclass
class BottleneckConfig(PeftConfig):
    """Configuration of a bottleneck adapter.

    Args:
        bottleneck_size: m, the width between the projections.
        placement: `houlsby`, after attention and feed-forward network, or `pfeiffer`, after the latter.
        non_linearity: `relu`, `gelu`, `silu` or `tanh`.
        init_weights: start as the identity, with an up-projection of zeros; False: random, for tests.
        target_modules: modules whose output the adapters change; None: those of `placement`.
        modules_to_save: modules that are trained whole beside the adapter.
    """

    bottleneck_size: int = field(default=64)
    placement: Literal["houlsby", "pfeiffer"] = field(default="houlsby")
    non_linearity: Literal["relu", "gelu", "silu", "tanh"] = field(default="relu")
    init_weights: bool = field(default=True)
    target_modules: list[str] | str | None = field(default=None)
    exclude_modules: list[str] | str | None = field(default=None)
    modules_to_save: list[str] | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        if not isinstance(self.bottleneck_size, int) or self.bottleneck_size < 1:
            raise ValueError(f"bottleneck_size is {self.bottleneck_size}; it must be 1 or more")
        for key, allowed in (("placement", PLACEMENTS), ("non_linearity", tuple(NONLINEARITIES))):
            if getattr(self, key) not in allowed:
                raise ValueError(f"{key} is {getattr(self, key)}; it must be {' or '.join(allowed)}")
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment] # as PEFT's own types hold it


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A module and the adapters on its output, by name."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("non_linearity",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self.non_linearity: dict[str, str] = {}
        self.merged_adapters: list[str] = []
        self.in_features, self.out_features = _get_in_out_features(BaseTunerLayer.get_base_layer(self))
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Add an adapter."""
        width = self.out_features
        down, up = nn.Linear(width, config.bottleneck_size), nn.Linear(config.bottleneck_size, width)
        self.bottleneck_down[adapter_name], self.bottleneck_up[adapter_name] = down, up
        self.non_linearity[adapter_name] = config.non_linearity
        if config.init_weights:
            nn.init.zeros_(down.bias)
            nn.init.zeros_(up.weight)
            nn.init.zeros_(up.bias)
        BaseTunerLayer._move_adapter_to_device_of_base_layer(self, adapter_name)
        BaseTunerLayer.set_adapter(self, self._active_adapter, inference_mode=config.inference_mode)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run the module, and the active adapters one after the other."""
        out: Tensor = self.base_layer(*args, **kwargs)
        if self._disable_adapters:
            return out
        dtype, active = out.dtype, self._active_adapter
        for name in [active] if isinstance(active, str) else active:
            if name in self.bottleneck_down:
                down, up = self.bottleneck_down[name], self.bottleneck_up[name]
                low = down(out.to(next(down.parameters()).dtype))
                out = out + up(NONLINEARITIES[self.non_linearity[name]](low))
        return out.to(dtype)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: a nonlinear adapter is no change of the base's weights."""
        raise ValueError("a bottleneck adapter has a nonlinearity, so it cannot be merged into the base's weights")


class BottleneckModel(BaseTuner):
    """A model with bottleneck adapters."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Find the places of the adapters, and put them there."""
        config = self.peft_config[adapter_name]
        if config.target_modules is None:
            config.target_modules = set(places((name for name, _ in model.named_modules()), config.placement))
        super().inject_adapter(model, adapter_name, *args, **kwargs)

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> Any:
        return peft_config

    def _create_and_replace(
        self, config: Any, adapter_name: str, target: Any, target_name: str, parent: Any, current_key: str, **_: Any
    ) -> None:
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, config)
            return
        layer = BottleneckLayer(target, adapter_name, config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)


def places(names: Iterable[str], placement: str) -> list[str]:
    """Return the modules after which a placement puts its adapters, shortened where that stays unambiguous.

    Raises: ValueError if the names are those of no architecture that is known.
    """
    every = [name for name in names if ".base_layer" not in name]
    attention = [name for name in every if ATTENTION.fullmatch(name)]
    feed_forward = [name for name in every if FEED_FORWARD.fullmatch(name)]
    if not feed_forward or (placement == "houlsby" and not attention):
        raise ValueError(
            f"placement {placement}: the modules that end {'feed-forward networks' if attention else 'attention'} are "
            "not found in this architecture; name them as target_modules"
        )
    chosen = feed_forward if placement == "pfeiffer" else [*attention, *feed_forward]
    ends = sorted({name.split(".")[-1] for name in chosen})
    if {name for name in every if name.split(".")[-1] in ends} == set(chosen):
        return ends
    return sorted(chosen)


PEFT_TYPE, PREFIX = register("bottleneck", BottleneckConfig, BottleneckModel), BottleneckModel.prefix


def new_config(keys: AdapterKeys, *, task: str, modules_to_save: list[str] | None) -> BottleneckConfig:
    """Return the configuration of a new adapter; its places depend on the model."""
    config = BottleneckConfig(task_type=task, **{**keys.fields(), "modules_to_save": modules_to_save})
    config.complete = _complete
    return config


def _complete(config: BottleneckConfig, model: nn.Module) -> BottleneckConfig:
    if config.target_modules is None:
        try:
            found = places((name for name, _ in model.named_modules()), config.placement)
        except ValueError as error:
            raise ModelError(f"peft_method bottleneck: {error}.") from error
        config.target_modules = set(found)  # type: ignore[assignment] # as in `BottleneckConfig`
    return config


def recipe_keys(config: BottleneckConfig) -> dict[str, Any]:
    """Return the recipe keys that an existing adapter determines."""
    return {"peft_method": "bottleneck"}


def faults(found: dict[str, Any]) -> Iterator[Fault]:
    """Yield the keys of a saved configuration that have impossible values."""
    yield from Generic("bottleneck", f"{__name__}:BottleneckConfig").faults(found)
