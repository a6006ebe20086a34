"""The JSON files that a recipe's keys name, and what may stand in them: read before any library reads them."""

from collections.abc import Iterator
from typing import Any

from alignment import strict_json
from alignment.config.documents import read_bytes
from alignment.config.keys import Fault, Keys
from alignment.config.secrets import keys_in
from alignment.config.yaml_text import a_kind
from alignment.errors import JsonError, RecipeError

JSON_KEYS = ("deepspeed", "fsdp_config", "accelerator_config")
ZERO_STAGES = (0, 1, 2, 3)


def json_files(keys: Keys) -> Iterator[Fault]:
    """The files of DeepSpeed, FSDP and Accelerate are there, are JSON, and hold a mapping without keys."""
    for key in JSON_KEYS:
        given = keys[key]
        if not isinstance(given, str):
            content = given
        elif not given.startswith("{") or key == "deepspeed":
            try:
                content = _read(given)
            except (RecipeError, JsonError) as error:
                yield (key,), str(error)
                continue
            yield from (((key,), f"{given}: {message}") for _, message in keys_in(content))
        else:
            continue
        if content is not None and not isinstance(content, dict):
            yield (key,), f"{given}: holds {a_kind(content)}, not a mapping"
        elif key == "deepspeed" and content:
            yield from _deepspeed_faults(content)


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
