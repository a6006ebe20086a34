"""Thousands of adapters on one base: the last used are in memory, and each row of a batch may have another one.

Adapters of plain LoRA are matrices in stacks (S-LoRA, https://arxiv.org/abs/2311.03285); adapters of other types are
PEFT's own modules, which compute their rows apart.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils import load_peft_weights
from peft.utils.other import get_pattern_key
from torch import nn

from alignment.errors import ModelError
from alignment.policy.adapter_files import read_adapter_config
from alignment.policy.adapters import require_task_of_adapter
from alignment.policy.load_roles import role_config
from alignment.policy.model_source import resolve_model
from alignment.policy.rowwise import Pair, Plan, Rowwise, stacked
from alignment.policy.switch import SwitchedBase
from alignment.policy.tasks import policy_task
from alignment.policy.weight_files import ADAPTER, listed, require_finite, shapes_in
from alignment.policy.weights import weights_hash

KEY = re.compile(r"base_model\.model\.(.+)\.lora_(A|B)\.weight")
# Fields of a LoRA configuration that plain matrices do not hold.
MORE = ("use_dora", "lora_bias", "modules_to_save", "target_parameters", "trainable_token_indices", "fan_in_fan_out",
        "alora_invocation_tokens", "use_qalora", "layer_replication")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Known:
    """An adapter that rows may have; its weights may be on the disk alone."""

    folder: str
    config: Any  # PEFT's
    is_plain: bool  # it is A and B of linear layers and nothing else


class ManyAdapters:
    """The adapters of one base.

    Args:
        base: a transformers language model without adapters. It is changed in place, and computes as itself until rows
            are assigned.
        path: where the base's weights came from; adapters of other weights are refused.
        capacity: adapters in memory; the least recently used leaves. A batch's own adapters always stay.
    """

    def __init__(self, base: Any, path: str, capacity: int = 64) -> None:
        self.base = base
        self.path = path
        self.capacity = capacity
        self.known: dict[str, Known] = {}
        self._pairs: OrderedDict[str, dict[str, Pair]] = OrderedDict()  # plain LoRA, the last used at the end
        self._switched = SwitchedBase(base)
        self._others: OrderedDict[str, None] = OrderedDict()  # adapters of other types in memory
        self._layers: dict[str, Rowwise] = {}
        self._plan: Plan | None = None
        self._rows: list[str | None] = []
        self._modules = {name: module for name, module in base.named_modules() if name}

    @property
    def in_memory(self) -> list[str]:
        """Names of the adapters whose weights are in memory."""
        return [*self._pairs, *self._others]

    # Loading, unloading, swapping

    def add(self, name: str, folder: Path | str) -> None:
        """Make an adapter known under a name; another of that name is replaced. Its weights are read when first used.

        Raises: ModelError if it is of another base, or no policy's.
        """
        source = resolve_model(str(folder))
        if source.adapter is None:
            raise ModelError(f"{folder} is a whole model; name an adapter on {self.path}.")
        if weights_hash(source.base) != weights_hash(self.path):
            raise ModelError(f"{folder} is an adapter of another base ({source.base}) than {self.path}.")
        config = read_adapter_config(source.adapter)
        require_task_of_adapter(config, source.adapter, policy_task(self.base.config))
        if getattr(config, "is_prompt_learning", False):
            raise ModelError(f"{folder} is an adapter of {config.peft_type.value}, which prepends tokens to a batch.")
        self.remove(name)
        self.known[name] = Known(source.adapter, config, is_plain(source.adapter, config))

    def remove(self, name: str) -> None:
        """Forget an adapter, and free its weights."""
        self.known.pop(name, None)
        self._drop(name)

    def _drop(self, name: str) -> None:
        self._pairs.pop(name, None)
        if name in self._others:
            del self._others[name]
            self._switched.remove(name)
            self._install()
        if self._plan is not None and name in self._plan.names:
            self._rows = []
            self._set(None)

    # Rows

    def activate(self, name: str | None) -> None:
        """Compute all rows of every batch with one adapter; None: with the base."""
        self._use([] if name is None else [name])
        self._rows = []
        self._set(Plan((name,), None))

    def assign(self, names: Sequence[str | None] | None) -> None:
        """Compute each row of the next batches with its own adapter; None: all with the base."""
        rows = list(names or [])
        self._use([name for name in dict.fromkeys(rows) if name is not None])
        self._rows = rows
        self._set(Plan.of(rows, self.base.device) if rows else None)

    def select(self, places: Sequence[int]) -> None:
        """Keep only these rows of the batch."""
        if self._rows:
            self.assign([self._rows[place] for place in places])

    def _use(self, names: list[str]) -> None:
        """Have these adapters in memory, and as many of the others as there is room for."""
        unknown = [name for name in names if name not in self.known]
        if unknown:
            raise ModelError(f"no adapter is called {unknown[0]!r}; {len(self.known)} are known.")
        for name in names:
            held = self._pairs if name in self._pairs else self._others
            if name in held:
                held.move_to_end(name)
            elif self.known[name].is_plain:
                self._pairs[name] = self._read(name)
            else:
                self._put_on_base(name)
        for held in (self._pairs, self._others):
            for name in list(held):
                if len(self.in_memory) > self.capacity and name not in names:
                    self._drop(name)

    def _read(self, name: str) -> dict[str, Pair]:
        """Read the matrices of a plain LoRA adapter.

        Raises: ModelError if they do not fit the base, or some are missing.
        """
        known = self.known[name]
        weights = load_peft_weights(known.folder, device="cpu")
        require_finite(weights, known.folder)
        found: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in weights.items():
            match = KEY.fullmatch(key)
            if match is None:
                raise ModelError(
                    f"adapter {known.folder} holds {key}, which is not a matrix of LoRA; put its files back."
                )
            found.setdefault(match[1], {})[match[2]] = tensor
        config = known.config
        wanted = {module for module in self._modules if check_target_module_exists(config, module)}
        odd = (wanted ^ set(found)) | {module for module, pair in found.items() if len(pair) != 2}
        if odd:
            raise ModelError(f"adapter {known.folder} and its configuration differ in {listed(odd)}; copy it again.")
        return {module: self._pair(module, pair, known) for module, pair in found.items()}

    def _pair(self, module: str, pair: dict[str, torch.Tensor], known: Known) -> Pair:
        layer, config = self._modules[module], known.config
        down, up = pair["A"], pair["B"]
        shape = (getattr(layer, "in_features", None), getattr(layer, "out_features", None))
        if not isinstance(layer, nn.Linear) or (down.shape[1], up.shape[0]) != shape or down.shape[0] != up.shape[1]:
            raise ModelError(
                f"adapter {known.folder} does not fit the base {self.path}: {module} is {shape}, and the matrices are "
                f"{tuple(down.shape)} and {tuple(up.shape)}."
            )
        scale = scale_of(config, module, down.shape[0])
        device = self.base.device
        return Pair(down.float().T.contiguous().to(device), (up.float().T * scale).contiguous().to(device))

    def _put_on_base(self, name: str) -> None:
        """Build an adapter's modules with PEFT, on the base without our layers."""
        for layer in self._layers.values():
            self._place(layer.name, layer.base_layer)
        try:
            found = load_peft_weights(self.known[name].folder, device="cpu")
            # PEFT saves the base's embeddings beside an adapter on them.
            weights = {key: tensor for key, tensor in found.items() if ".base_layer." not in key}
            self._switched.add(name, role_config(self.known[name].config), weights)
        finally:
            self._install()
        self._others[name] = None

    def _modules_of(self, name: str) -> dict[str, nn.Module]:
        """Return the modules of an adapter on the base, by the names of those that they replace."""
        names = {id(module): path for path, module in self._modules.items()}
        return {names[place]: module.eval() for place, module in self._switched.modules_of(name).items()}

    def _install(self) -> None:
        for layer in self._layers.values():
            self._place(layer.name, layer)

    def _place(self, path: str, module: nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        self.base.get_submodule(parent)._modules[name] = module

    def _set(self, plan: Plan | None) -> None:
        """Hand each layer the plan, and the matrices of the plan's adapters."""
        names = () if plan is None else plan.names
        same = self._plan is not None and self._plan.names == names and plan is not None
        self._plan = plan
        if same:
            for layer in self._layers.values():
                layer.plan = plan
            return
        pairs = [self._pairs.get(name, {}) if name else {} for name in names]
        modules = [self._modules_of(name) if name is not None and name in self._others else {} for name in names]
        adapted: set[str] = set().union(*pairs, *modules)
        for path in adapted - self._layers.keys():
            self._layers[path] = Rowwise(path, self._modules[path])
        for path, layer in self._layers.items():
            layer.plan = plan
            layer.stack = stacked([each.get(path) for each in pairs])
            layer.__dict__["others"] = {group: each[path] for group, each in enumerate(modules) if path in each}
            self._place(path, layer)


def scale_of(config: Any, module: str, rank: int) -> float:
    """Return the scale of a LoRA adapter at a module."""
    alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern.keys(), module), config.lora_alpha)
    return float(alpha / (rank**0.5 if config.use_rslora else rank))


def is_plain(folder: str, config: Any) -> bool:
    """Whether an adapter is A and B of linear layers and nothing else."""
    file = Path(folder, ADAPTER)
    if config.peft_type != "LORA" or not file.is_file():
        return False
    start = str(config.init_lora_weights).lower()
    return (
        config.bias == "none"
        and not any(getattr(config, field, None) for field in MORE)
        and not start.startswith(("pissa", "olora", "corda", "loftq"))
        and all(KEY.fullmatch(name) for name in shapes_in(file))
    )
