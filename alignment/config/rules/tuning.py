"""The keys of the tuning method: `peft_config` against the fields of its configuration class, and `lora_*` keys.

The fields are read from the source of PEFT, or of the method's own module, so no check imports torch.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from alignment.config.faults import did_you_mean, shown, wrong_kind
from alignment.config.library import Kind, trainer_keys, trainer_texts
from alignment.config.methods import ADAPTER_KEYS, TUNING_METHODS, TuningMethod
from alignment.config.peft_fields import OWNED, WITHHELD
from alignment.config.rules.keys import Fault, Keys, Rule
from alignment.config.rules.patterns import USUAL_NAMES, WHOLE_LAYERS, fault_of_patterns
from alignment.config.schema.keys import PEFT_NAMES, QUANTISING

LARGEST, LARGEST_RANK = 2**31, 2**16
RANKS = re.compile(r"r|(init|target|effective|subspace)_r(ank)?|num_virtual_tokens|bottleneck_size|encoder_hidden_size")
LAYERS = ("layers_to_transform", "trainable_layers")
PATTERNS = ("target_modules", "exclude_modules", "feedforward_modules", "modules_to_save")
MAY_BE_ZERO = re.compile(r".*(seed|key)|oft_block_size")  # though their defaults are positive
AVERAGES = ("beta1", "beta2")
INIT_R, TARGET_R = 12, 8  # AdaLoraConfig's defaults
SHARES, COUNTS = ("fraction", "reserve_p"), ("num_samples",)
INITIAL = re.compile(r"init_(\w+_)?weights")
INIT = "init_lora_weights"
STARTS = re.compile(r"true|gaussian|orthogonal|pissa(_niter_\d{1,3})?|olora|eva")  # PEFT's own list holds a template
CHANGES_BASE = re.compile(r"pissa(_niter_\d{1,3})?|olora")
EVA = "peft.tuners.lora:EvaConfig"


def lora_keys(keys: Keys) -> Iterator[Fault]:
    """An adapter's keys belong to the methods that read them."""
    name = keys["peft_method"]
    method = TUNING_METHODS[name]
    for key in ADAPTER_KEYS:
        if key not in method.keys and keys.changed(key):
            yield (key,), f"has no effect with peft_method {name}; {_instead(key, name, method)}"


def _instead(key: str, name: str, method: TuningMethod) -> str:
    """Return what to write in place of a key that the method does not read."""
    field = PEFT_NAMES.get(key)
    if field is not None and method.config and field in trainer_keys(method.config):
        return f"write peft_config: {{{field}: ...}}"
    others = " or ".join(other for other, each in TUNING_METHODS.items() if key in each.keys)
    return f"take it out, or use peft_method {others}"


def lora_layers(keys: Keys) -> Iterator[Fault]:
    """`lora_layers` belongs to methods that are placed by layer, and contradicts layers that `peft_config` chooses."""
    name, method = keys["peft_method"], TUNING_METHODS[keys["peft_method"]]
    if not keys.given("lora_layers"):
        return
    fields = trainer_keys(method.config) if method.config else {}
    if "trainable_layers" in fields:
        instead = f"write peft_config: {{trainable_layers: {keys['lora_layers']}}}"
        yield ("lora_layers",), f"has no effect with peft_method {name}; {instead}"
    elif LAYERS[0] not in fields:
        instead = "name modules in peft_config: target_modules" if "target_modules" in fields else "take it out"
        yield ("lora_layers",), f"has no effect with peft_method {name}, which is not placed by layer; {instead}"
    elif LAYERS[0] in keys["peft_config"]:
        yield ("lora_layers",), f"chooses layers, and peft_config: {LAYERS[0]} does too; give one"


def peft_config(keys: Keys) -> Iterator[Fault]:
    """The keys of `peft_config` are fields of the method's configuration, each given in one place."""
    name, given = keys["peft_method"], keys["peft_config"]
    method = TUNING_METHODS[name]
    fields = trainer_keys(method.config) if method.config else {}
    also = {field: key for key, field in PEFT_NAMES.items() if key in method.keys and keys.given(key)}
    for field, value in given.items():
        told = _fault_of(field, value, name, fields)
        if told is None and field in also and keys.changed(also[field]):
            told = f"is also given as {also[field]}; give one"
        if told is not None:
            yield ("peft_config", field), told


def _fault_of(field: str, value: Any, name: str, fields: dict[str, Kind]) -> str | None:
    """Return the fault of a field; None if there is none."""
    method = TUNING_METHODS[name]
    if not fields:
        return f"has no effect with peft_method {name}; take it out"
    if field not in fields:
        return _unknown(field, name, method, fields)
    refused = OWNED.get(field) or method.withheld.get(field) or _withheld(field, value)
    if refused:
        return f"cannot be set: {refused}"
    if field == INIT:
        known = isinstance(value, bool | str) and STARTS.fullmatch(str(value).lower()) and value != "true"
        listed = "true, gaussian, orthogonal, eva, pissa, pissa_niter_4 or olora"
        return None if known else f"must be {listed}, found {shown(value)}"
    if not fields[field].accepts(value):
        return wrong_kind(value, _words(fields[field]), fields[field].choices)
    return _out_of_range(field, value) or _below_the_least(method.config, field, value)


def _unknown(field: str, name: str, method: TuningMethod, fields: dict[str, Kind]) -> str:
    if field in PEFT_NAMES and PEFT_NAMES[field] in fields:
        own = f"; write {PEFT_NAMES[field]}" + (f", or {field} beside peft_config" if field in method.keys else "")
        return f"is not a field of {_class(method)}{own}"
    others = [other for other, each in TUNING_METHODS.items() if each.config and field in trainer_keys(each.config)]
    near = did_you_mean(field, [key for key in fields if key not in OWNED])
    if others and not near:
        return f"is not a field of {_class(method)}, the configuration of {name}; it belongs to {', '.join(others[:3])}"
    return f"is not a field of {_class(method)}, the configuration of {name}{near}"


def _class(method: TuningMethod) -> str:
    return method.config.partition(":")[2]


def _withheld(field: str, value: Any) -> str | None:
    """Return why a field may not have a value, for all methods."""
    if value is False and INITIAL.fullmatch(field):
        return "false starts from a random function, and references are the base; it is for debugging"
    if field not in WITHHELD:
        return None
    harmless, why = WITHHELD[field]
    return None if value in harmless else why


def _words(kind: Kind) -> str:
    """Name what a field takes; PEFT has fields that take a choice or a truth value."""
    return f"{kind}, or true or false" if kind.choices and "bool" in kind.names else str(kind)


def _out_of_range(field: str, value: Any) -> str | None:
    """Return the fault of a value of the right kind."""
    if field in PATTERNS:
        return _pattern(field, value)
    if field == "eva_config":
        return _nested(value, EVA)
    if isinstance(value, dict):
        return _by_module(field, value)
    if isinstance(value, list):
        told = (_number("layers", each) for each in value if field == "layers_to_transform")
        nothing = field in LAYERS and ("" in value or not value)
        return "names no layer; name one" if nothing else next(filter(None, told), None)
    return _number("layers" if field == "layers_to_transform" else field, value)


def _number(field: str, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if RANKS.fullmatch(field) and not 0 < value <= LARGEST_RANK:
        return f"must be from 1 to {LARGEST_RANK}, found {shown(value)}"
    if field.endswith("dropout") and not 0 <= value < 1:
        return f"must be at least 0 and less than 1, found {shown(value)}"
    if field in SHARES and not 0 < value <= 1:
        return f"must be more than 0 and at most 1, found {shown(value)}"
    if field in AVERAGES and not 0 < value < 1:
        return f"must be more than 0 and less than 1, found {shown(value)}"
    if field in COUNTS and value < 1:
        return f"must be 1 or more, found {shown(value)}"
    if field == "trainable_layers" and value == 0:
        return "is 0; give a number of layers, negative to count from the first, or names of modules"
    if field == "layers" and not 0 <= value < LARGEST_RANK:
        return f"must name layers from 0 on, found {shown(value)}"
    return None if abs(value) < LARGEST else f"must be less than {LARGEST}, found {shown(value)}"


def _below_the_least(spec: str, field: str, value: Any) -> str | None:
    """Return the fault of a size or count below 1, or of another number below 0, judged by the field's default."""
    default = trainer_texts(spec).get(field, ("", ""))[0]
    try:
        usual = float(default)
    except ValueError:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or usual < 0 or field in LAYERS:
        return None
    least = 1 if default.isdecimal() and usual >= 1 and not MAY_BE_ZERO.fullmatch(field) else 0
    return None if value >= least else f"must be {least} or more, found {shown(value)}"


def _pattern(field: str, value: Any) -> str | None:
    if value == "":
        return "names no module; name some, or leave it out"
    if isinstance(value, str) and value.lower() not in WHOLE_LAYERS:
        return fault_of_patterns([value], USUAL_NAMES)
    nothing = "" in value if isinstance(value, list) else False
    nothing = nothing or (value == [] and field == "target_modules")
    return "names no module; name some, or leave it out" if nothing else None


def _by_module(field: str, value: dict[Any, Any]) -> str | None:
    """Check numbers by modules' names, such as `rank_pattern`; a name may be a pattern."""
    rank = field == "rank_pattern"
    for key, number in value.items():
        if not isinstance(key, str) or isinstance(number, bool) or not isinstance(number, int if rank else int | float):
            return f"must hold {'whole ' if rank else ''}numbers by modules' names, found {shown(key)}: {shown(number)}"
        told = _number("r" if rank else field, number) or ("must not be 0" if number == 0 else None)
        if told:
            return f"{key}: {told}"
    return fault_of_patterns([rf"(.*\.)?({key})$" for key in value], USUAL_NAMES)


def _nested(value: dict[str, Any] | None, spec: str) -> str | None:
    fields = trainer_keys(spec)
    for key, inner in (value or {}).items():
        if key not in fields:
            return f"{key} is not a field of {spec.partition(':')[2]}{did_you_mean(key, fields)}"
        if not fields[key].accepts(inner):
            return f"{key} {wrong_kind(inner, fields[key])}"
    return None


def start_of_lora(keys: Keys) -> Iterator[Fault]:
    """PiSSA and OLoRA take their start out of the base, which no other role may share; EVA takes it from data."""
    start = str(keys["peft_config"].get(INIT, True)).lower()
    at = ("peft_config", INIT)
    if start == "eva" and keys.about.rows != "demonstrations":
        yield at, f"eva starts from demonstrations, which {keys.about.title} does not have; use it in stage sft"
    elif start == "eva" and keys["peft_method"] != "lora":
        yield at, "eva needs peft_method lora"
    elif start != "eva" and keys["peft_config"].get("eva_config") is not None:
        yield ("peft_config", "eva_config"), "has no effect without init_lora_weights: eva"
    if not CHANGES_BASE.fullmatch(start):
        return
    if keys["peft_method"] != "lora":
        yield at, f"{start} needs peft_method lora"
    elif given := [key for key in QUANTISING if keys[key]]:
        yield at, f"{start} changes the base's weights, which cannot be quantised then; take {given[0]} out"
    elif keys.about.is_online:
        yield at, f"{start} changes the base that the roles of {keys.about.title} share; use it in stage sft"


def pruning_schedule(keys: Keys) -> Iterator[Fault]:
    """AdaLoRA prunes between its first and its last steps, which a run must have between them."""
    if keys["peft_method"] != "adalora":
        return
    given = keys["peft_config"]
    first, last = given.get("init_r", INIT_R), given.get("target_r", TARGET_R)
    if isinstance(first, int) and isinstance(last, int) and last > first:
        yield ("peft_config", "target_r"), f"{last} is more than init_r {first}, and ranks only fall; give less"
    begin, end = (given.get(key, 0) for key in ("tinit", "tfinal"))
    steps = _steps(keys)
    if isinstance(begin, int) and isinstance(end, int) and steps is not None:
        told = no_step_to_prune(begin, end, steps)
        if told is not None:
            yield ("peft_config",), told


def _steps(keys: Keys) -> int | None:
    """Return the number of optimizer steps; None if it depends on the data."""
    if keys.about.is_online:
        epochs = next(keys[key] for key in ("num_ppo_epochs", "num_iterations") if keys.exists(key))
        return int(keys["total_episodes"] // keys["rollout_batch_size"] * keys["num_mini_batches"] * epochs)
    given = keys["max_steps"]
    return given if isinstance(given, int) and given > 0 else None


def no_step_to_prune(tinit: int, tfinal: int, steps: int) -> str | None:
    """Return the fault of a schedule that prunes in none of a run's steps; None if it prunes in some."""
    if tinit + tfinal < steps:
        return None
    return (
        f"tinit {tinit} and tfinal {tfinal} leave none of the run's {steps} steps to prune in; lower them, or train "
        "longer"
    )


def scaled_gradients(keys: Keys) -> Iterator[Fault]:
    """A method that reads gradients reads unscaled ones."""
    if keys["fp16"] and TUNING_METHODS[keys["peft_method"]].reads_gradients:
        yield ("fp16",), f"scales the gradients that peft_method {keys['peft_method']} reads; use bf16"


def _needs_method(rule: Callable[[Keys], Iterator[Fault]]) -> Rule:
    """Apply a rule to the stages that have a tuning method."""
    return lambda keys: rule(keys) if keys.exists("peft_method") else iter(())


TUNING = (lora_keys, lora_layers, peft_config, start_of_lora, pruning_schedule, scaled_gradients)
TUNING_RULES: list[Rule] = [_needs_method(rule) for rule in TUNING]
