"""Combinations of keys that several stages have."""

import importlib.util
import os
from collections.abc import Iterator, Mapping
from typing import Any

from alignment.config.documents import Location
from alignment.config.faults import did_you_mean
from alignment.config.input_paths import located_inputs
from alignment.config.library import trackers
from alignment.config.rules.combinations import broken_by_itself
from alignment.config.rules.keys import Fault, Keys, Rule
from alignment.config.schema.keys import QUANTISING

SCORERS = ("scorers", "watch_scorers")
MODELS = ("reward_model_path", "model_name_or_path", "reward_models")  # of scorers and judges
TRACKER_EXTRAS = ("tensorboard", "trackio")


def folders(keys: Keys) -> Iterator[Fault]:
    """A run must not write to a folder that it reads: `overwrite` deletes its content first."""
    output = os.path.abspath(keys["output_dir"])
    for at, path in _inputs(keys):
        if os.path.exists(path) and os.path.commonpath([output, os.path.abspath(path)]) == output:
            yield (
                at,
                f"{path} lies in output_dir {keys['output_dir']}, which the run writes; give output_dir another folder",
            )


def single_paths(keys: Keys) -> Iterator[Fault]:
    """Several paths are a list: a text with commas would be hashed, and guarded, as one path that does not exist."""
    for at, path in _inputs(keys):
        if "," in path and not os.path.exists(path):
            several = "[" + ", ".join(part.strip() for part in path.split(",")) + "]"
            fault = f"{path} is one path, and does not exist"
            in_reward = at[0] in SCORERS or (at[0] == "reward_model_path" and keys.about.makes != "results")
            in_reward = in_reward and at[-1] in MODELS and "judge" not in at
            if in_reward:
                ensemble = f"{{kind: ensemble, reward_models: {several}}}"
                yield at, f"{fault}; write several reward models as the scorer {ensemble}"
            elif at[-1] in MODELS and at[0] in ("reward_model_path", "judge", "judges"):
                yield at, f"{fault}; write several reward models as {several}"
            else:
                yield at, f"{fault}; name one"


def _inputs(keys: Keys) -> Iterator[tuple[Location, str]]:
    """Yield the paths that a recipe reads, without those of keys that are already at fault."""
    return located_inputs(keys.cls, {key: value for key, value in keys.values.items() if key not in keys.wrong})


def precision(keys: Keys) -> Iterator[Fault]:
    """One half precision at most."""
    if keys["bf16"] and keys["fp16"]:
        yield ("fp16",), "excludes bf16; give one"


def reports(keys: Keys) -> Iterator[Fault]:
    """A tracker is one that transformers supports."""
    given, known = keys["report_to"], trackers()
    for name in given if isinstance(given, list) else [given]:
        if known and name not in known:
            yield (
                ("report_to",),
                f"{name!r} is not a tracker; give {', '.join(known)}{did_you_mean(name, known)}",
            )
        elif name in TRACKER_EXTRAS and importlib.util.find_spec(name) is None:
            yield ("report_to",), f"{name} is not installed; run `pip install {name}`"
        elif not keys.about.trains and name not in ("wandb", "all", "none"):
            yield ("report_to",), f"{name} tracks training only; use wandb for stage {keys.stage}, or remove it"


def combinations(keys: Keys) -> Iterator[Fault]:
    """Combinations that cannot work under any strategy."""
    for one in broken_by_itself(keys.stage, keys.__getitem__):
        yield (one.key,), f"{one.reason}; {one.remedy}"


def one_number_of_bits(at: Location, held: Mapping[str, Any]) -> Iterator[Fault]:
    """Weights of a model, whose keys lie at `at`, are held in 4 bits or in 8."""
    if all(held.get(key) for key in QUANTISING):
        yield (*at, "load_in_8bit"), "cannot be true beside load_in_4bit: true; take one of them out"


def quantisation(keys: Keys) -> Iterator[Fault]:
    """The weights are held in one way, and the 4-bit details need 4 bits."""
    yield from one_number_of_bits((), {key: keys[key] for key in QUANTISING})
    for key in ("bnb_4bit_quant_type", "use_bnb_nested_quant"):
        if keys.changed(key) and not keys["load_in_4bit"]:
            yield (key,), "has no effect without load_in_4bit: true"


def mixtures(keys: Keys) -> Iterator[Fault]:
    """Fractions are normalised to a sum of one, so all entries of a mixture have one, or none has."""
    for key in ("datasets", "eval_datasets", "perplexity_datasets", "outside_tasks"):
        entries = keys[key] or []
        without = [i for i, entry in enumerate(entries) if entry.get("fraction") is None]
        if without and len(without) < len(entries):
            yield (
                (key, without[0]),
                "has no fraction, but other entries of the list have one; give all or none",
            )


def candidates(keys: Keys) -> Iterator[Fault]:
    """Tables identify policies by their names."""
    if not keys.exists("candidates"):
        return
    names = {keys["baseline_name"]: "the baseline"}
    for index, entry in enumerate(keys["candidates"]):
        if entry["name"] in names:
            yield ("candidates", index, "name"), f"{entry['name']} is also the name of {names[entry['name']]}"
        names.setdefault(entry["name"], f"candidates[{index}]")


SHARED_RULES: list[Rule] = [
    folders,
    single_paths,
    precision,
    reports,
    combinations,
    quantisation,
    mixtures,
    candidates,
]
