"""The shared trunk: the frozen layers below every adapter, whose hidden states are the same for all roles.

Adapters in the top layers alone leave the layers below them as they are. Their output depends on the tokens only: it is
the same for policy, reference, value and reward, and for every epoch of an update. `Trunk.states` computes it once;
`Trunk.given` has a forward pass of the decoder start from it. The layers keep their numbers, since some models look up
the kind of attention by a layer's number. trlX's hydra models (https://github.com/CarperAI/trlx) share the trunk
between policy and reference, within one forward pass.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from alignment.errors import ModelError, first_line
from alignment.policy.layers import layer_stack
from alignment.policy.switch import Switch, SwitchedBase

PROBE = (2, 8)  # rows and tokens
TOLERANCES = {torch.float16: 1e-2, torch.bfloat16: 2e-2}  # of the largest number, where the model rounds in between


class _InPlaceOf(nn.Module):
    """Takes the place of a layer and computes nothing: returns the given states, or else its input.

    Args:
        layer: the layer, whose attributes the decoder may read. like_layers: puts hidden states into what the layers
            return.
    """

    def __init__(self, layer: nn.Module, like_layers: Callable[[Any], Any]) -> None:
        super().__init__()
        self.__dict__["layer"] = layer  # not registered: its weights keep their names
        self.like_layers = like_layers
        self.states: Tensor | None = None  # (batch, time, width)
        self.input: Any = None

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Return the states, or else the input."""
        self.input = inputs[0] if inputs else options["hidden_states"]
        return self.like_layers(self.input if self.states is None else self.states)

    def __getattr__(self, name: str) -> Any:
        """Return the layer's attribute, such as the kind of its attention."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["layer"], name)


class Trunk:
    """The lowest layers of a decoder.

    Args:
        decoder: of transformers. layers: its list of layers. depth: number of layers in the trunk.
    """

    def __init__(self, decoder: Any, layers: nn.ModuleList, depth: int) -> None:
        self.decoder = decoder
        self.layers = layers
        self.depth = depth
        self._output: Any = None  # what a layer returns, with None in place of tensors; `disagreement` notes it

    def states(self, input_ids: Tensor) -> Tensor:
        """Return the output of the trunk's last layer, (batch, time, width), without gradient."""
        with torch.no_grad(), self._without(range(self.depth, len(self.layers))) as places:
            self.decoder(input_ids=input_ids, use_cache=False)
        found: Tensor = places[0].input
        return found

    @torch.no_grad()
    def disagreement(self, passes: Sequence[Callable[..., Tensor]]) -> str | None:
        """Compare passes that start from the trunk's states with whole ones, on a few tokens.

        Args:
            passes: of the roles: input_ids and the trunk's states, if given → last hidden states.

        Returns: None if they are equal within rounding, else the reason.
        """
        vocabulary, device = self.decoder.config.get_text_config().vocab_size, next(self.decoder.parameters()).device
        probe = (torch.arange(math.prod(PROBE), device=device) % vocabulary).view(PROBE)
        whole = [run(probe) for run in passes]
        try:
            with self._noting_output():
                states = self.states(probe)
            if not isinstance(states, Tensor) or states.shape[:2] != probe.shape:
                return "they pass on more than hidden states of shape (batch, time, width)"
            begun = [run(probe, states) for run in passes]
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:  # of the model's own code
            return f"its code does not run without them ({type(error).__name__}: {first_line(error)})"
        limit = TOLERANCES.get(states.dtype, 1e-4)
        found = [_difference(ours, theirs) for ours, theirs in zip(begun, whole, strict=True)]
        return next((f"passes that start above them differ by {each:.1e}" for each in found if not each <= limit), None)

    @contextmanager
    def given(self, states: Tensor) -> Iterator[None]:
        """Have the decoder's forward pass take the trunk's output as given; states: (batch, time, width)."""
        with self._without(range(self.depth)) as places:
            places[-1].states = states
            yield

    @contextmanager
    def _without(self, numbers: range) -> Iterator[list[_InPlaceOf]]:
        """Leave layers out of the forward pass."""
        held = {str(number): self.layers[number] for number in numbers}
        places = {name: _InPlaceOf(layer, self._like_layers) for name, layer in held.items()}
        self.layers._modules.update(places)
        try:
            yield list(places.values())
        finally:
            self.layers._modules.update(held)

    @contextmanager
    def _noting_output(self) -> Iterator[None]:
        """Note what the trunk's last layer returns."""

        def note(_layer: nn.Module, _inputs: Any, output: Any) -> None:
            self._output = type(output)([None] * len(output)) if isinstance(output, tuple | list) else None

        hook = self.layers[self.depth - 1].register_forward_hook(note)
        try:
            yield
        finally:
            hook.remove()

    def _like_layers(self, states: Any) -> Any:
        """Return hidden states as the layers do: some return a tuple that begins with them."""
        return states if self._output is None else type(self._output)([states, *self._output[1:]])


def trunk_below(switched: SwitchedBase) -> Trunk | None:
    """Return the layers below every adapter; None if there are none, or the base itself trains."""
    base = switched.base
    try:
        stack, depth = layer_stack(base)
    except ModelError:
        return None
    depth = min([depth - 1, *lowest_layers(switched).values()])
    adapters = {id(part) for switch in switched.switches for part in switch.parameters()}
    if not depth or any(part.requires_grad and id(part) not in adapters for part in base.parameters()):
        return None
    return Trunk(base.get_decoder(), base.get_submodule(stack), depth)


def require_trunk(switched: SwitchedBase, lora_layers: int, *, saved: Collection[str]) -> None:
    """Require that the adapters of all roles are in the top layers that a recipe's `lora_layers` counts.

    Args:
        saved: roles whose adapters an earlier run saved; the others' are new.

    Raises: ModelError that names a role whose adapter is below them.
    """
    depth = layer_stack(switched.base)[1]
    for role, (lowest, module) in _lowest(switched).items():
        if lowest < depth - lora_layers:
            raise ModelError(
                f"lora_layers is {lora_layers} of {depth}, and the adapter of the {role} begins at layer {lowest} "
                f"({module}), so that no pass can be shared below layer {depth - lora_layers}. "
                f"{_remedy(role, module, saved)}, or set share_trunk: false."
            )


def _remedy(role: str, module: str, saved: Collection[str]) -> str:
    if role in saved and role.startswith("reward"):
        return "Train the reward model with the same lora_layers"
    if role == "value":
        return "Give the value a method that is placed by layer (value_peft_method), or value_model: head"
    if role in saved:
        return "Merge it (alignment merge) and start from the merged model"
    return f"Take {module.rpartition('.')[2]} out of the modules that the recipe names"


def lowest_layers(switched: SwitchedBase) -> dict[str, int]:
    """Return the lowest layer of each role's adapter: 0 if it changes what enters the layers, their number if none."""
    return {role: lowest for role, (lowest, _) in _lowest(switched).items()}


def _lowest(switched: SwitchedBase) -> dict[str, tuple[int, str]]:
    """Return the lowest layer of each role's adapter, and the module there that it changes."""
    base: Any = switched.base
    stack, depth = layer_stack(base)
    after = _after_the_layers(base, base.get_submodule(stack))
    found = dict.fromkeys(switched.adapters, (depth, ""))
    for name, module in base.named_modules():
        if isinstance(module, Switch) and id(module) not in after:
            number = name.removeprefix(f"{stack}.").partition(".")[0] if name.startswith(f"{stack}.") else "0"
            for role in found.keys() & module._modules.keys():
                found[role] = min(found[role], (int(number), name), key=lambda each: each[0])
    prompts = () if switched.prompts is None else switched.prompts._modules
    return {role: (0, "its prompt") if role in prompts else lowest for role, lowest in found.items()}


def _after_the_layers(base: Any, layers: nn.Module) -> set[int]:
    """Return the ids of modules that compute after the layers: the output layer, and what the decoder lists later."""
    children = list(base.get_decoder().children()) if hasattr(base, "get_decoder") else []
    place = next((i for i, child in enumerate(children) if child is layers), len(children))
    after = [*children[place + 1 :], base.get_output_embeddings()]
    return {id(part) for module in after if module is not None for part in module.modules()}


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference as a share of the largest number."""
    ours, theirs = ours.float(), theirs.float()
    return float((ours - theirs).abs().amax() / theirs.abs().amax().clamp(min=1e-6))
