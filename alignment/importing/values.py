"""Values that several peers write in the same way."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.config.documents import read_bytes, read_yaml
from alignment.config.loading import own_keys
from alignment.config.schema import STAGES
from alignment.errors import JsonError, NotJson, RecipeError
from alignment.importing.keys import OFF_HERE, Drop, Ours, Refuse
from alignment.strict_json import parse

if TYPE_CHECKING:
    from alignment.importing.conversion import Conversion

REMOTE_CODE = (
    "code of a model's repository runs only where trust_remote_code stands in your own recipe; architectures of "
    "transformers need none"
)
FASTER = "makes the same computation faster or smaller; it changes nothing that is trained"
TRACKING = "a tracker's own settings are its environment variables"
LAUNCHER = "the launcher decides it; see docs/launch.md"
SAMPLING_CAP = 3.0  # TRL's default of the ratio of training to sampling
NOT_ROUNDED = "the activations are not rounded"


def listed(value: Any) -> list[str]:
    """Return the words of a list, or of a text with commas between them."""
    words = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    return [str(word).strip() for word in words if str(word).strip()]


def target_modules(value: Any) -> Any:
    """Return the value of lora_target_modules for a peer's targets: names, a pattern, or all linear layers."""
    if isinstance(value, str) and value.strip().replace("_", "-") in ("all", "all-linear"):
        return "all-linear"
    words = listed(value) if not isinstance(value, str) or re.fullmatch(r"[\w.,\s-]+", value) else [value]
    if any(word in ("all", "all-linear") for word in words):
        return "all-linear"
    if isinstance(value, str) and not re.fullmatch(r"[\w.,\s-]+", value):
        return value
    return words


def eight_bits(conversion: "Conversion", value: Any) -> Ours:
    """Convert `load_in_8bit`."""
    if not value:
        raise Drop(OFF_HERE)
    if conversion.get("load_in_4bit") or conversion.get("adapter") == "qlora":
        raise Refuse("weights are held in 8 or in 4 bits; keep one of the two")
    return {"load_in_8bit": True}


SLICE = re.compile(r"(?P<name>[^\[]+)(?:\[:(?P<most>\d+)\])?")


def held_out(conversion: "Conversion", value: Any) -> Ours:
    """Return the held-out data of a share, or of a number of rows: the first rows of each data set."""
    if not value:
        raise Drop(OFF_HERE)
    if value < 1:
        return {"test_split_size": value}
    entries = conversion.recipe.get("datasets", [])
    whole = [(entry, SLICE.fullmatch(entry.get("split", "train"))) for entry in entries if "fraction" not in entry]
    parts = [(entry, found["name"], found["most"] or "") for entry, found in whole if found is not None]
    if not parts:
        raise Refuse("is a number of rows; give the share of the rows that it is, below 1")
    number, held = max(1, int(value) // len(parts)), []
    for entry, name, most in parts:
        held.append({**entry, "split": f"{name}[:{number}]"})
        entry["split"] = f"{name}[{number}:{most}]"
    conversion.note("eval_datasets", f"the first {number} rows of each are held out, {value} in all")
    return {"eval_datasets": held}


def strategy_of(value: Any) -> str | None:
    """Return the strategy of `alignment launch` that a DeepSpeed file's name or content is; None if it is neither."""
    if isinstance(value, dict):
        zero = value.get("zero_optimization")
        stage = zero.get("stage") if isinstance(zero, dict) else 0
        offloads = isinstance(zero, dict) and any(
            isinstance(zero.get(key), dict) and zero[key].get("device") in ("cpu", "nvme")
            for key in ("offload_param", "offload_optimizer")
        )
        return _strategy(str(stage), offloads)
    name = str(value).rpartition("/")[2].lower()
    found = re.search(r"z(?:ero)?_?-?([0123])", name)
    return _strategy(found[1], "offload" in name) if found else None


def _strategy(stage: str, offloads: bool) -> str | None:
    names = {"0": "ddp", "1": "zero1", "2": "zero2", "3": "zero3-offload" if offloads else "zero3"}
    return names.get(stage)


def deepspeed(conversion: "Conversion", value: Any) -> Ours:
    """Name the strategy of a DeepSpeed configuration by its file's name or content, or keep the file."""
    if not value:
        raise Drop(OFF_HERE)
    strategy = strategy_of(value)
    places = () if isinstance(value, dict) else (Path(value), Path(conversion.path).parent / value)
    file = next((place for place in places if place.is_file()), None)
    if strategy is None and file is not None:
        strategy = strategy_of(_object_in(file))
    if strategy is not None:
        raise Drop(f"start the recipe with alignment launch RECIPE --strategy {strategy}")
    if isinstance(value, dict):
        raise Refuse("write the configuration to a file, and name that")
    if file is None:
        raise Refuse("no such file; give the key up, and start the recipe with alignment launch RECIPE --strategy")
    return {"deepspeed": str(file)}


def _object_in(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if it holds another value."""
    try:
        value = parse(read_bytes(str(file), "JSON").decode("utf-8-sig"))
    except (UnicodeDecodeError, JsonError, NotJson, RecipeError) as error:
        raise Refuse(f"{file} cannot be read: {error}") from None
    return value if isinstance(value, dict) else {}


SHIPPED_BY_TRL = {"single_gpu": "single", "multi_gpu": "ddp", "fsdp1": "fsdp2", "fsdp2": "fsdp2"}  # beside zeroN


def strategy_of_accelerate(given: dict[str, Any]) -> str | None:
    """Return the strategy of `alignment launch` that a configuration of Accelerate is; None if there is none."""
    kind = str(given.get("distributed_type", "NO")).upper()
    if kind == "DEEPSPEED":
        config = given.get("deepspeed_config") or {}
        offloads = any(config.get(f"offload_{what}_device") in ("cpu", "nvme") for what in ("param", "optimizer"))
        return _strategy(str(config.get("zero_stage", 0)), offloads)
    return {"NO": "single", "MULTI_GPU": "ddp", "FSDP": "fsdp2"}.get(kind)


def accelerate(conversion: "Conversion", value: Any) -> Ours:
    """Name the strategy of a configuration of Accelerate, which TRL's command line takes by name or as a file."""
    if not value:
        raise Drop(OFF_HERE)
    file = next((place for place in (Path(value), Path(conversion.path).parent / value) if place.is_file()), None)
    found = read_yaml(str(file))[1] if file is not None else None
    if isinstance(found, dict):
        strategy = strategy_of_accelerate(found)
    else:
        strategy = SHIPPED_BY_TRL.get(str(value)) or strategy_of(value)
    if strategy is None:
        raise Refuse("names no strategy that is known here; start the recipe with alignment launch RECIPE --strategy")
    raise Drop(f"start the recipe with alignment launch RECIPE --strategy {strategy}")


def fsdp(_: Any, value: Any) -> Ours:
    """Name the strategy of an FSDP configuration."""
    if not value:
        raise Drop(OFF_HERE)
    raise Drop("start the recipe with alignment launch RECIPE --strategy fsdp2")


def attention(value: Any) -> Ours:
    """Return the attention implementation by the names that peers give it."""
    names = {
        "fa2": "flash_attention_2", "flash": "flash_attention_2", "fa3": "flash_attention_3", "disabled": "eager",
        "sdp": "sdpa", "flex": "flex_attention",
    }  # fmt: skip
    if value in (None, "auto", False):
        raise Drop("the implementation is chosen by the machine")
    if value is True:  # of older versions
        return {"attn_implementation": "flash_attention_2"}
    return {"attn_implementation": names.get(str(value), str(value))}


def new_tokens(conversion: "Conversion", words: list[str]) -> Ours:
    """Return tokens that are added to the tokenizer.

    Raises: Refuse in a stage without the key.
    """
    if "add_tokens" not in own_keys(STAGES[conversion.stage]):
        raise Refuse("tokens are added and trained in stage sft; start this stage from such a model")
    return {"add_tokens": words}


def from_scratch(conversion: "Conversion", value: Any) -> Ours:
    """Convert a key that starts from random weights."""
    if not value:
        raise Drop(OFF_HERE)
    if conversion.stage != "pretrain":
        raise Refuse("random weights are trained in stage pretrain alone")
    return {"from_scratch": True}


def by_length(_: Any, value: Any) -> Ours:
    """Convert `group_by_length`."""
    if not value:
        raise Drop(OFF_HERE)
    return {"train_sampling_strategy": "group_by_length"}


def warmup(conversion: "Conversion", value: Any) -> Ours:
    """Return a share of all steps as warmup_steps, which takes one below 1; a number of steps comes first."""
    if conversion.given.get("warmup_steps"):
        raise Drop("warmup_steps is given too, and comes first")
    return {"warmup_steps": value or 0}


def threads(value: Any, known: bool) -> Ours:
    """Return a number of processes that tokenise, within what the key takes."""
    if not known:
        raise Drop("rows are read by one process in this stage")
    if value is None:
        raise Drop(OFF_HERE)
    return {"dataset_num_proc": max(1, min(int(value), 256))}
