"""A LoRA adapter with the first directions of its matrices alone, as DyLoRA trains them to be used."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import load_file, save_file

from alignment.errors import ModelError, RecipeError
from alignment.policy.methods.nested_ranks import cut_to_rank
from alignment.policy.model_files import ADAPTER_CONFIG, read_object
from alignment.policy.model_source import resolve_model
from alignment.policy.saved_files import WHOLE
from alignment.policy.weight_files import ADAPTER


@contextmanager
def at_rank(run: Path | str, rank: int) -> Iterator[Path]:
    """Yield a folder that holds a run's LoRA adapter cut to a rank; it is removed afterwards.

    lora_alpha stays, so the scale is alpha / rank as in training (https://arxiv.org/abs/2210.07558).

    Raises: ModelError if the run has no LoRA adapter, RecipeError if it has one of a lower rank.
    """
    source = resolve_model(str(run))
    if source.adapter is None:
        raise ModelError(f"{run} is a whole model already; there is no adapter to cut.")
    adapter = Path(source.adapter)
    config = read_object(adapter / ADAPTER_CONFIG)
    if config.get("peft_type") != "LORA" or config.get("use_dora"):
        raise ModelError(f"{run} is no LoRA adapter, and only LoRA's matrices can be cut to a rank; leave --rank out.")
    pattern = config.get("rank_pattern") or {}
    most = max([config["r"], *pattern.values()])
    if not 1 <= rank <= most:
        raise RecipeError([f"--rank is {rank}; the adapter of {run} has rank {most}: give 1 to {most}."])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / adapter.name
        folder.mkdir()
        for file in adapter.iterdir():
            if file.is_file() and file.name not in (ADAPTER, ADAPTER_CONFIG, WHOLE):
                shutil.copy(file, folder / file.name)
        save_file(cut_to_rank(load_file(adapter / ADAPTER), rank), folder / ADAPTER, metadata={"format": "pt"})
        changed = {
            "r": min(rank, config["r"]),
            "rank_pattern": {name: min(rank, each) for name, each in pattern.items()},
            "base_model_name_or_path": source.base,
        }
        (folder / ADAPTER_CONFIG).write_text(json.dumps({**config, **changed}), encoding="utf-8")
        yield folder
