"""Rules for the JSON files that a recipe names, checked before a library reads them."""

from collections.abc import Iterator
from typing import Any

from alignment import strict_json
from alignment.config.documents import read_bytes
from alignment.config.rules.keys import Fault, Keys
from alignment.config.secrets import keys_in
from alignment.config.yaml_text import a_kind
from alignment.errors import JsonError, RecipeError

JSON_KEYS = ("deepspeed", "fsdp_config", "accelerator_config")
ZERO_STAGES = (0, 1, 2, 3)
FLAGS = frozenset(  # of transformers' AcceleratorConfig
    "split_batches dispatch_batches even_batches use_seedable_sampler non_blocking use_configured_state".split()
)


def json_files(keys: Keys) -> Iterator[Fault]:
    """The files of DeepSpeed, FSDP and Accelerate exist, are JSON, and contain a mapping without API keys."""
    for key in JSON_KEYS:
        given = keys[key]
        if not isinstance(given, str):
            content = given
        else:
            try:
                as_text = given.startswith("{") and key != "deepspeed"
                content = strict_json.parse(given) if as_text else _read(given)
            except (RecipeError, JsonError) as error:
                yield (key,), str(error)
                continue
            yield from (((key,), f"{given}: {message}") for _, message in keys_in(content))
        if content is not None and not isinstance(content, dict):
            yield (key,), f"{given}: holds {a_kind(content)}, not a mapping"
        elif key == "deepspeed" and content:
            yield from _deepspeed_faults(content)
        elif key == "accelerator_config" and content:
            yield from _accelerator_faults(content)


def _read(path: str) -> Any:
    try:
        return strict_json.parse(read_bytes(path, "JSON"))
    except JsonError as error:
        raise JsonError(f"{path}: {error}; give a file of JSON") from None


def _deepspeed_faults(content: dict[str, Any]) -> Iterator[Fault]:
    zero = content.get("zero_optimization", {})
    if not isinstance(zero, dict):
        yield ("deepspeed",), f"zero_optimization must be a mapping, found {a_kind(zero)}"
    elif zero.get("stage", 0) not in ZERO_STAGES or isinstance(zero.get("stage"), bool):
        found = strict_json.shown(zero.get("stage"))
        yield ("deepspeed",), f"zero_optimization.stage must be one of 0, 1, 2, 3, found {found}"


def _accelerator_faults(content: dict[str, Any]) -> Iterator[Fault]:
    """Accelerate accepts any truthy value, so the types are checked here."""
    for name in FLAGS & content.keys():
        value = content[name]
        if not isinstance(value, bool) and not (value is None and name == "dispatch_batches"):
            found = strict_json.shown(value)
            yield ("accelerator_config",), f"{name} must be true or false, found {found}"
    accumulation = content.get("gradient_accumulation_kwargs")
    if isinstance(accumulation, dict) and "num_steps" in accumulation:
        yield ("accelerator_config",), "num_steps of gradient_accumulation_kwargs: give gradient_accumulation_steps"
