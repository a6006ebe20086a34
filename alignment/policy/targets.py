"""Checks that an adapter's configuration names modules of the model."""

import itertools
import re
from collections.abc import Collection, Sequence
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from alignment.config.rules.patterns import WHOLE_LAYERS
from alignment.errors import ModelError
from alignment.policy.layers import layer_stack

SHOWN = 12  # names that a message lists


def require_modules(model: Any, config: Any) -> set[int]:
    """Refuse names that no module has: PEFT accepts them if one name is found, and in `modules_to_save` always.

    Where layers are chosen, a text of targets is replaced by the list of modules that it means.

    Returns: the numbers of the layers that are chosen; none if they are not.

    Raises: ModelError that names them and the modules that there are.
    """
    names = [name for name, _ in model.named_modules() if name]
    prefix = "lora_" if config.peft_type == "LORA" else "peft_config."
    for field in ("target_modules", "feedforward_modules"):
        given = getattr(config, field, None)
        if isinstance(given, str):
            _require_match(names, given, f"{prefix}{field}")
        elif given:
            _require(names, given, f"{prefix}{field}")
    whole = [name for name in getattr(config, "modules_to_save", None) or [] if name != "score"]
    _require(names, whole, f"{prefix}modules_to_save")
    count_from_the_top(model, config)
    _require_layers(model, config)
    _require_targets_in_layers(names, config, prefix)
    chosen = {*_layers(config)}
    expand_targets(model, config)
    return chosen


def count_from_the_top(model: Any, config: Any) -> None:
    """Replace negative numbers of layers, of `lora_layers`, by the layers that they mean.

    Raises: ModelError if the model has fewer layers.
    """
    numbers = _layers(config)
    if not any(number < 0 for number in numbers):
        return
    depth = layer_stack(model)[1]
    if depth + min(numbers) < 0:
        raise ModelError(f"lora_layers is {-min(numbers)}; the model has {depth} layers. Give 1 to {depth}.")
    config.layers_to_transform = [depth + number for number in numbers]


def expand_targets(model: Any, config: Any) -> None:
    """List the modules of the chosen layers that a text of targets means: PEFT chooses layers from lists alone."""
    targets = getattr(config, "target_modules", None)
    if not isinstance(targets, str) or getattr(config, "layers_to_transform", None) is None:
        return
    if targets.lower() in WHOLE_LAYERS:
        heads = {id(model.get_output_embeddings()), id(getattr(model, "score", None))}
        linear = (nn.Linear, Conv1D)
        found = [name for name, each in model.named_modules() if isinstance(each, linear) and id(each) not in heads]
    else:
        found = [name for name, _ in model.named_modules() if re.fullmatch(targets, name)]
    config.target_modules = {name for name in found if _layer_of(name, config) in _layers(config)}
    config.layers_to_transform = config.layers_pattern = None


def _require_targets_in_layers(names: list[str], config: Any, prefix: str) -> None:
    """Refuse targets that no chosen layer has: PEFT would leave them out."""
    targets, chosen = getattr(config, "target_modules", None), _layers(config)
    if not chosen or not targets or (isinstance(targets, str) and targets.lower() in WHOLE_LAYERS):
        return
    alone = [targets] if isinstance(targets, str) else sorted(targets)
    for target in alone:
        matched = re.compile(target if isinstance(targets, str) else rf"(.*\.)?{re.escape(target)}").fullmatch
        found = {name: _layer_of(name, config) for name in names if matched(name)}
        outside = [name for name, layer in found.items() if layer is None and name not in alone]
        if outside or not any(layer in chosen or name in alone for name, layer in found.items()):
            where = f"{outside[0]}, which is in no layer" if outside else f"no module of layers {_listed(chosen)}"
            raise ModelError(
                f"{prefix}target_modules: {target} names {where}, and the adapter is limited to layers "
                f"{_listed(chosen)}. Take it out, or take out the choice of layers (lora_layers, layers_to_transform)."
            )


def require_no_other_layer(wrapped: Any, chosen: set[int], config: Any) -> None:
    """Refuse an adapter that PEFT also put on other layers than the chosen ones.

    It does so for `target_parameters`, which it also derives for fused experts from the names of unfused ones.

    Args:
        wrapped: PEFT's model. chosen: numbers of the layers; none: all. config: with what PEFT derived.
    """
    parameters = sorted(getattr(config, "target_parameters", None) or [])
    numbers = {_layer_of(name, config) for name, each in wrapped.named_parameters() if each.requires_grad}
    others = sorted(number for number in numbers if number is not None and number not in chosen)
    if chosen and parameters and others:
        raise ModelError(
            f"the adapter is limited to layers {_listed(sorted(chosen))}, and PEFT puts it on {', '.join(parameters)} "
            f"of the experts in layers {_listed(others)} too. Name modules without {', '.join(parameters)} and the "
            "experts' projections in lora_target_modules, such as [q_proj, k_proj, v_proj, o_proj]."
        )


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:SHOWN]))
    return f"{shown}, ..." if len(numbers) > SHOWN else shown


def chosen_layers(config: Any) -> set[int]:
    """Return the numbers of the layers that an adapter is limited to; none if it is limited to none."""
    names = getattr(config, "target_modules", None)
    numbers = {_layer_of(name, config) for name in names} if not isinstance(names, str | None) else set()
    return {*_layers(config)} or {number for number in numbers if number is not None}


def _layers(config: Any) -> list[int]:
    given = getattr(config, "layers_to_transform", None)
    return [given] if isinstance(given, int) else list(given or [])


def _layer_of(name: str, config: Any) -> int | None:
    """Return the number of a module's layer: the first in its name, after one of `layers_pattern` if that is given."""
    given = getattr(config, "layers_pattern", None) or []
    lists = [given] if isinstance(given, str) else given
    parts = name.split(".")
    numbers = (int(b) for a, b in itertools.pairwise(parts) if b.isdecimal() and (not lists or a in lists))
    return next(numbers, None)


def _require_layers(model: Any, config: Any) -> None:
    """Refuse layers that the model does not have: PEFT would leave them out."""
    numbers = _layers(config)
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    absent = [number for number in numbers if depth is not None and number >= depth]
    if depth is not None and absent:
        raise ModelError(
            f"layers_to_transform: the model has no layer {', '.join(map(str, absent))}; its {depth} layers are 0 to "
            f"{depth - 1}."
        )


def _require_match(names: list[str], pattern: str, key: str) -> None:
    """Refuse a regular expression that matches no module; `require_patterns` has limited its running time."""
    if pattern.lower() in WHOLE_LAYERS or any(re.fullmatch(pattern, name) for name in names):
        return
    longest = max(names, key=lambda name: name.count("."), default="")
    listed = f"; to name modules by their last part, write a list: [{pattern}]" if pattern.isidentifier() else ""
    raise ModelError(
        f"{key}: the regular expression {pattern} matches none of the model's modules. It is matched "
        f"against whole names, {longest} for one{listed}"
    )


def _require(names: list[str], wanted: Collection[str], key: str) -> None:
    """Refuse unknown names, ignoring layer numbers: the model of a plan has fewer layers."""
    known = {_unnumbered(name) for name in names}
    ends = known | {name[place + 1 :] for name in known for place, letter in enumerate(name) if letter == "."}
    absent = sorted(name for name in wanted if _unnumbered(name) not in ends)
    if absent:
        kinds = sorted({name.rpartition(".")[2] for name in names if not name.rpartition(".")[2].isdecimal()})
        more = ", ..." if len(kinds) > SHOWN else ""
        raise ModelError(
            f"{key}: the model has no module {', '.join(absent)}; it has {', '.join(kinds[:SHOWN])}{more}. Take the "
            "name out, or correct it."
        )


def _unnumbered(name: str) -> str:
    return re.sub(r"(?<![^.])[0-9]+(?![^.])", "N", name)
