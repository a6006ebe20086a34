"""The lineage of the model that a stage starts from, and the files of the model that it trains."""

import os
import shutil
from pathlib import Path
from typing import Any

from transformers import Trainer

from alignment.config.schema import ModelKeys
from alignment.data.template import Template
from alignment.manifest import read_manifest
from alignment.policy.generation import read_generation, stopping_at, write_generation
from alignment.policy.model_source import model_of
from alignment.policy.saved_files import WHOLE, mark_of
from alignment.policy.weights import weights_hash
from alignment.run.files import flush_to_disk, naming_the_disk, write_json
from alignment.run.lineage import fingerprint, require_same
from alignment.train.sharding import full_tensors
from alignment.train.tuning import finish_adapter

LEFT_BEHIND = frozenset({"training_args.bin", "README.md"})  # a pickle, and PEFT's empty model card


def lineage_of(keys: ModelKeys, tokenizer: Any, template: Template) -> dict[str, Any]:
    """Return the manifest's record of the model that a stage starts from.

    Raises: LineageError if an adapter's manifest names another base, tokenizer or template.
    """
    source = model_of(keys)
    lineage = fingerprint(source.base, tokenizer, template_hash=template.hash, stop_token_ids=template.stop_token_ids)
    if source.adapter is not None:
        before = read_manifest(source.adapter).get("lineage", {})
        require_same(lineage, before, f"this stage (base {source.base})", f"adapter {source.adapter}")
    adapter = source.adapter and {"adapter_sha256": weights_hash(source.adapter)}
    return {**lineage, "adapter": source.adapter, **(adapter or {})}


def generation_of(keys: ModelKeys, template: Template) -> dict[str, Any]:
    """Return the generation config of the trained model: its base's, with the template's stop tokens."""
    source = model_of(keys)
    found = read_generation(source.adapter, source.base, revision=keys.model_revision)
    return stopping_at(template.stop_token_ids, found)


def save_trained(trainer: Any, path: Path, generation: dict[str, Any] | None = None) -> None:
    """Write a trainer's model and tokenizer into a run directory; files are moved there once complete, weights last.

    Adapters other than `default`, such as DPO's copy for the reference, are left out. `generation` is written to
    generation_config.json, so that plain `generate` uses the template's stop tokens.
    """
    beside = path / ".saving"
    if trainer.is_world_process_zero():
        shutil.rmtree(beside, ignore_errors=True)  # from a start that was killed here
    trainer.accelerator.wait_for_everyone()
    try:
        with naming_the_disk(path):
            _save_model(trainer, str(beside))
            trainer.accelerator.wait_for_everyone()
            if trainer.is_world_process_zero():
                finish_adapter(trainer.callback_handler.callbacks, beside)
                if generation is not None:
                    write_generation(beside, generation)
                files = [file for file in beside.iterdir() if file.is_file() and file.name not in LEFT_BEHIND]
                mark = mark_of(beside, [file.name for file in files])
                (path / WHOLE).unlink(missing_ok=True)  # from a start that was killed in the lines below
                for file in sorted(files, key=lambda file: (file.suffix == ".safetensors", file.name)):
                    flush_to_disk(file)
                    os.replace(file, path / file.name)
                write_json(path / WHOLE, mark)
    finally:
        if trainer.is_world_process_zero():
            shutil.rmtree(beside, ignore_errors=True)


def _save_model(trainer: Any, path: str) -> None:
    """Write the model unsharded; the Trainer's own method writes none if FSDP's checkpoints are sharded."""
    if not trainer.is_fsdp_enabled or type(trainer).save_model is not Trainer.save_model:
        trainer.save_model(path)
        return
    weights = full_tensors({name: p for name, p in trainer.model.named_parameters() if p.requires_grad})
    if trainer.args.should_save:
        trainer._save(path, state_dict=weights)
