"""Adapters of any PEFT types on one base: a switch at each place where PEFT replaces a module.

PEFT puts adapters of one type on a model, and replaces modules of the base by its own. Here each role has a PeftModel
of its own, built on the plain base. What PEFT put into the base moves behind a `Switch`, and the active role decides
which module computes. tests/policy/test_switch.py compares each type with PEFT's own model: logits and gradients are
equal.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel, PeftModelForCausalLM, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from alignment.errors import ModelError, first_line
from alignment.policy.adapters import copies_in_float32, expected_warnings
from alignment.policy.methods import completed
from alignment.policy.methods.indices import require_indices
from alignment.policy.prompts import Prompts, SoftPrompt, as_saved, load_prompt, start_from_words

ADAPTER = "default"  # the adapter's name inside its role's PeftModel


class Switch(nn.Module):
    """Replaces a module of the base, and computes as the active role's module.

    `base_layer` is the base's own module. Each role's module, under the role's name, reads it as `base_layer` too, but
    does not register it: every weight has one name, and sharding and checkpoints meet it once.
    """

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.activate(None)

    def activate(self, role: str | None) -> None:
        """Compute as `role`; None, or a role without a module here: as the base."""
        own = None if role is None else self._modules.get(role)
        self.__dict__["active"] = self.base_layer if own is None else own

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Call the active module."""
        return self.active(*inputs, **options)

    def __getattr__(self, name: str) -> Any:
        """Return the active module's attribute: models read a layer's `weight`, for one."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "active" not in self.__dict__:
                raise
            return getattr(self.__dict__["active"], name)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a module of the base was replaced."""

    parent: nn.Module
    name: str
    original: nn.Module

    @property
    def key(self) -> tuple[int, str]:
        return id(self.parent), self.name


@dataclass(frozen=True, slots=True)
class RoleAdapter:
    """A role's adapter."""

    model: Any  # PeftModel; its tree is the base's, so it computes only within `SwitchedBase.plain`
    modules: Mapping[tuple[int, str], nn.Module]  # by place
    trained: tuple[nn.Parameter, ...]  # what PEFT trains of it

    @property
    def config(self) -> Any:
        """PEFT's configuration."""
        return self.model.peft_config[ADAPTER]

    @property
    def lora_layers(self) -> list[Any]:
        """PEFT's LoRA layers of this role."""
        parts = [part for module in self.modules.values() for part in module.modules()]
        return [part for part in parts if isinstance(part, LoraLayer)]


class SwitchedBase:
    """A frozen base and the adapters of its roles, of any types.

    Args:
        base: a transformers model without adapters. It is changed in place.
    """

    def __init__(self, base: Any) -> None:
        self.base = base
        self.adapters: dict[str, RoleAdapter] = {}
        self.prompts: Prompts | None = None
        self._places: dict[tuple[int, str], tuple[_Place, Switch]] = {}
        base.requires_grad_(False)

    @property
    def switches(self) -> list[Switch]:
        """All switches."""
        return [switch for _, switch in self._places.values()]

    def add(self, role: str, config: Any, weights: Mapping[str, Tensor] | None = None) -> None:
        """Put a role's adapter on the base.

        Args:
            config: PEFT's. weights: as `load_peft_weights` returns them; None: PEFT's initialisation.

        Raises: ModelError if the weights do not fit, or the type changes more of the base than the modules that it
            replaces.
        """
        self._put({place.key: place.original for place, _ in self._places.values()})
        if config.is_prompt_learning:
            self.adapters[role] = self._with_prompt(role, config, weights)
        else:
            self.adapters[role] = self._with_modules(role, config, weights)
        self._put({place.key: switch for place, switch in self._places.values()})

    def _with_prompt(self, role: str, config: Any, weights: Mapping[str, Tensor] | None) -> RoleAdapter:
        """Put a soft prompt before the decoder's inputs."""
        if self.prompts is None:
            self.prompts = Prompts(self.base)
        if weights is not None:
            config = as_saved(config)
        model = PeftModelForCausalLM(self.base, config, adapter_name=ADAPTER)
        encoder = model.prompt_encoder[ADAPTER]
        if weights is None:
            start_from_words(self.base, encoder, config)
        else:
            load_prompt(encoder, weights, role)
        prompt = self.prompts.add(role, encoder, config)
        trained = tuple(parameter for parameter in encoder.parameters() if parameter.requires_grad)
        return RoleAdapter(model, {(id(self.prompts), role): prompt}, trained)

    def _with_modules(self, role: str, config: Any, weights: Mapping[str, Tensor] | None) -> RoleAdapter:
        """Put a switch at each place where PEFT replaces a module."""
        before = _Snapshot(self.base)
        config = completed(config, self.base)
        with expected_warnings():
            model = PeftModel(self.base, config, adapter_name=ADAPTER)
        del self.base.peft_config  # PEFT would take the next role's adapter for a second one of this model
        if weights is not None:
            _load(model, weights, role)
            require_indices(model, f"of the {role}")
        copies_in_float32(model)
        trained = tuple(parameter for parameter in model.parameters() if parameter.requires_grad)
        replaced = before.replaced(f"the {role} adapter ({config.peft_type.value})")
        modules = {place.key: place.parent.get_submodule(place.name) for place in replaced}
        held = {id(parameter) for module in modules.values() for parameter in module.parameters()}
        if not all(id(parameter) in held and id(parameter) not in before.parameters for parameter in trained):
            raise ModelError(
                f"the {role} adapter ({config.peft_type.value}) trains weights outside the modules that it adapts, and "
                "the roles of PPO share those. Use another peft_method."
            )
        for place in replaced:
            _share(modules[place.key], before.modules)
            _, switch = self._places.setdefault(place.key, (place, Switch(place.original)))
            switch.add_module(role, modules[place.key])
        return RoleAdapter(model, modules, trained)

    def remove(self, role: str) -> None:
        """Take a role's adapter off the base; places that no other role adapts get their own modules back."""
        del self.adapters[role]
        for place, switch in list(self._places.values()):
            switch._modules.pop(role, None)
            switch.activate(None)
            if set(switch._modules) == {"base_layer"}:
                place.parent._modules[place.name] = place.original
                del self._places[place.key]

    def modules_of(self, role: str) -> dict[int, nn.Module]:
        """Return the modules of a role's adapter, by the id of the base's module that each replaces."""
        modules = self.adapters[role].modules
        return {id(place.original): modules[key] for key, (place, _) in self._places.items() if key in modules}

    def prompt(self, role: str) -> SoftPrompt:
        """Return a role's soft prompt."""
        (prompt,) = self.adapters[role].modules.values()
        assert isinstance(prompt, SoftPrompt)
        return prompt

    def activate(self, role: str | None) -> None:
        """Compute as `role`; None: as the base."""
        if self.prompts is not None:
            self.prompts.activate(role)
        for _, switch in self._places.values():
            switch.activate(role)

    @contextmanager
    def plain(self, role: str) -> Iterator[Any]:
        """Yield the role's PeftModel with its modules in their places, as PEFT built it."""
        adapter = self.adapters[role]
        self._put({place.key: adapter.modules.get(place.key, place.original) for place, _ in self._places.values()})
        try:
            yield adapter.model
        finally:
            self._put({place.key: switch for place, switch in self._places.values()})

    def _put(self, modules: Mapping[tuple[int, str], nn.Module]) -> None:
        for place, _ in self._places.values():
            place.parent._modules[place.name] = modules[place.key]


class _Snapshot:
    """What a model holds before PEFT changes it."""

    def __init__(self, model: nn.Module) -> None:
        parts = list(model.modules())
        self.modules = {id(module) for module in parts}
        self.parameters = {id(parameter) for parameter in model.parameters()}
        self._children = [(module, dict(module._modules)) for module in parts]
        self._own = [(module, _own_state(module)) for module in parts]

    def replaced(self, who: str) -> list[_Place]:
        """Return the places whose module PEFT has replaced.

        Raises: ModelError if PEFT changed something else.
        """
        places = []
        for parent, children in self._children:
            if list(parent._modules) != list(children):
                raise ModelError(
                    f"{who} adds or removes modules of {type(parent).__name__}, and the roles of PPO share those. Use "
                    "another peft_method."
                )
            for name, child in children.items():
                if parent._modules[name] is child or child is None:
                    continue
                if isinstance(child, nn.ModuleList | nn.ModuleDict):
                    raise ModelError(
                        f"{who} replaces the whole list {name}, and the roles of PPO share its layers. Use another "
                        "peft_method."
                    )
                places.append(_Place(parent, name, child))
        changed = next((type(module).__name__ for module, state in self._own if _own_state(module) != state), None)
        if changed is not None:
            raise ModelError(
                f"{who} changes the base's own {changed}, and the roles of PPO share the base: reference, value and "
                "reward would change with it. Use another peft_method, or merge it (alignment merge) and start from "
                "the merged model."
            )
        return places


def _own_state(module: nn.Module) -> tuple[Any, ...]:
    """What differs after a module is modified in place: weights, their storage and norms, hooks, methods."""
    weights = [
        (name, id(tensor), tensor._version, tensor.data_ptr(), _norm(tensor))
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    ]
    hooks = [len(module._forward_hooks), len(module._forward_pre_hooks)]
    return type(module), weights, hooks, "forward" in module.__dict__


@torch.no_grad()
def _norm(tensor: Tensor) -> float | None:
    if tensor.is_meta or not tensor.is_floating_point():
        return None
    norm = float(torch.linalg.vector_norm(tensor.data, dtype=torch.float32))
    if math.isnan(norm):  # the packed bytes of a 4-bit weight, stored in a floating-point type
        return float(tensor.data.contiguous().view(torch.uint8).sum(dtype=torch.int64))
    return norm


def _share(module: nn.Module, of_base: set[int]) -> None:
    """Have an adapter's module read modules of the base without registering them."""
    for part in [part for part in module.modules() if id(part) not in of_base]:
        for name, child in list(part._modules.items()):
            if id(child) in of_base:
                del part._modules[name]
                part.__dict__[name] = child


def _load(model: Any, weights: Mapping[str, Tensor], role: str) -> None:
    """Load an adapter's weights, all of them and no others."""
    try:
        set_peft_model_state_dict(model, dict(weights), adapter_name=ADAPTER)
    except RuntimeError as error:
        raise ModelError(
            f"the {role} adapter does not fit the base: {first_line(str(error).strip().splitlines()[-1])}"
        ) from error
    own = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    wrong = sorted(set(weights) ^ set(own))
    if wrong:
        raise ModelError(f"the {role} adapter does not fit the base: {wrong[0]} has no counterpart")
