"""Which peer a file belongs to."""

from collections.abc import Mapping, Set
from typing import Any

from alignment.config.faults import did_you_mean
from alignment.config.loading import library_keys
from alignment.config.schema import STAGES
from alignment.errors import RecipeError
from alignment.importing.axolotl import AXOLOTL
from alignment.importing.conversion import Peer
from alignment.importing.llamafactory import LLAMAFACTORY
from alignment.importing.trl import TRL
from alignment.importing.values import strategy_of, strategy_of_accelerate

PEERS = {peer.name: peer for peer in (TRL, LLAMAFACTORY, AXOLOTL)}
MODELS = ("model_name_or_path", "base_model", "sft_model_path", "model_name")  # keys, of which a recipe has one
MODEL_OF = {  # peer → its keys that name the model
    "trl": {"model_name_or_path", "sft_model_path", "model_name"},
    "llamafactory": {"model_name_or_path", "adapter_name_or_path"},
    "axolotl": {"base_model"},
}
PLACES = ("file_name", "hf_hub_url", "script_url", "ms_hub_url", "om_hub_url", "cloud_file_name")  # of data sets
STRATEGY = "start a recipe with `alignment launch RECIPE --strategy "
LAUNCHERS = {  # keys of a launcher's configuration, whose it is, and the strategy that it names
    "compute_environment": ("Accelerate", strategy_of_accelerate),
    "distributed_type": ("Accelerate", strategy_of_accelerate),
    "zero_optimization": ("DeepSpeed", strategy_of),
    "train_micro_batch_size_per_gpu": ("DeepSpeed", strategy_of),
}
OTHER_FILES = {  # keys of files that are no recipe, and what the file is
    "actor_rollout_ref": "is a configuration of verl; docs/import.md names its keys here",
    "dockerfile_commands": "is a configuration of axolotl's cloud; jobs start with `alignment launch`",
    "gpu_count": "is a configuration of axolotl's cloud; jobs start with `alignment launch`",
    "top.model_name": "is saved by LLaMA Board; import the training arguments that its preview shows",
    "train_dataset": "is of a version of LLaMA-Factory (v1) whose keys are not read; write those of its stable version",
}


def detect(path: str, given: dict[str, Any], wanted: str | None) -> Peer:
    """Return the peer of a file.

    Raises: RecipeError if `wanted` is no peer, or the file is of none, or may be of several.
    """
    if wanted is not None:
        if wanted not in PEERS:
            raise RecipeError([f"--from {wanted}: must be one of {', '.join(PEERS)}{did_you_mean(wanted, PEERS)}"])
        others = [name for name, models in MODEL_OF.items() if given.keys() & models]
        if others and wanted not in others:
            model = next(key for key in given if key in MODEL_OF[others[0]])
            raise RecipeError([f"--from {wanted}: {path} is of {' or '.join(others)}, by its key {model}"])
        return PEERS[wanted]
    if given.get("stage") in STAGES and "datasets" in given:
        raise RecipeError([f"{path}: is a recipe of this project already; `alignment check` checks it"])
    tables = {name: _keys(peer) for name, peer in PEERS.items()}
    scores = {name: len(given.keys() & (keys - _others(tables, name))) for name, keys in tables.items()}
    best = max(scores.values())
    found = [name for name, score in scores.items() if score == best]
    whole = [name for name, keys in tables.items() if given.keys() <= keys and given.keys() & MODEL_OF[name]]
    if best == 0 and len(whole) == 1 and len(given) > 1 and "datasets" in given:  # keys that no other peer has together
        return PEERS[whole[0]]
    if len(found) > 1 or not given.keys() & MODEL_OF[found[0]]:  # keys of transformers stand in the files of several
        rivals = {name: scores[name] for name in PEERS if given.keys() & MODEL_OF[name]} or scores
        best = max(rivals.values())
        found = [name for name, score in rivals.items() if score == best]
    if best == 0 or given.keys().isdisjoint(MODELS):
        raise RecipeError([f"{path}: is no recipe of {', '.join(PEERS)}; if it is, name which with --from"])
    if len(found) > 1:
        raise RecipeError([f"{path}: may be of {' or '.join(found)}; name one with --from"])
    return PEERS[found[0]]


def _keys(peer: Peer) -> set[str]:
    """Return the keys that a peer's files may have."""
    trainer = {key for cls in STAGES.values() for key in library_keys(cls)} if peer.trainer_keys else set()
    return {*peer.keys(), *trainer}


def _others(tables: Mapping[str, Set[str]], name: str) -> set[str]:
    """Return the keys of the other peers."""
    return {key for other, keys in tables.items() if other != name for key in keys}


def refuse_other_files(path: str, given: dict[str, Any]) -> None:
    """Refuse configurations of other things than a training run.

    Raises: RecipeError.
    """
    for key, (title, strategy_in) in LAUNCHERS.items():
        if key in given:
            strategy = strategy_in(given) or "STRATEGY"
            raise RecipeError([f"{path}: is a configuration of {title}; {STRATEGY}{strategy}`"])
    if "model" in given and isinstance(given.get("peft_config"), dict) and "stage" not in given:
        raise RecipeError([f"{path}: {OTHER_FILES['train_dataset']}"])
    entries = [entry for entry in given.values() if isinstance(entry, dict)]
    if len(entries) == len(given) and all(not entry.keys().isdisjoint(PLACES) for entry in entries):
        raise RecipeError([f"{path}: is a list of data sets of LLaMA-Factory; a recipe names one in `dataset`"])
    if all(isinstance(value, str) and key.startswith("<") for key, value in given.items()):
        raise RecipeError(
            [f"{path}: describes new tokens for LLaMA-Factory; a recipe names them in add_special_tokens"]
        )
    for key, told in OTHER_FILES.items():
        if key in given:
            raise RecipeError([f"{path}: {told}"])
