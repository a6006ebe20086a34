"""The files of an exported model."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from alignment.config.schema import ModelKeys
from alignment.config.tasks import CAUSAL, CLASSIFIER, MASKED, SEQ2SEQ
from alignment.data.template import Template
from alignment.errors import DataError, ModelError
from alignment.policy.base import load_base, load_causal_lm
from alignment.policy.generation import read_generation, stopping_at, write_generation
from alignment.policy.held import held_as_trained
from alignment.policy.merge import TOLERANCES, in_floats, largest_difference, sample_logits, write_merged
from alignment.policy.mergeable import Mergeable
from alignment.policy.model_files import ADAPTER_CONFIG, CONFIG
from alignment.policy.model_source import ModelSource, resolve_model
from alignment.policy.plain_lora import is_accepted, plain_lora
from alignment.policy.tasks import is_classifier, require_task
from alignment.policy.tokenizer import load_tokenizer, template_of
from alignment.policy.weight_files import ADAPTER, INDEX

WEIGHTS = "model*.safetensors"
EXACT = 1e-3  # largest logit difference between a run and its exported adapter, both in float32


@dataclass(frozen=True)
class Source:
    """A run to export, of which nothing is loaded yet."""

    run: Path
    source: ModelSource
    keys: ModelKeys
    task: str
    tokenizer: Any
    adapter: Mergeable | None  # None: a whole model
    template: Template | None  # None: it answers nothing, or is an adapter of a reward model


@dataclass(frozen=True)
class Written:
    """What was written."""

    report: dict[str, Any]
    notes: list[str]
    rank: int | None = None


def find_source(run: Path, *, as_adapter: bool, trust_remote_code: bool) -> Source:
    """Find what a run's folder holds.

    Raises: ModelError if it is no model, or cannot be exported in this way.
    """
    if not run.is_dir():
        raise ModelError(f"{run}: no such folder; name a run, a model's or an adapter's folder.")
    source = resolve_model(str(run))
    held = {**held_as_trained(run), "model_name_or_path": str(run), "trust_remote_code": trust_remote_code}
    if source.adapter is None:
        if as_adapter:
            raise ModelError(f"{run} is a whole model, of which there is no adapter; leave --adapter out.")
        keys = ModelKeys(**held).in_floats()
        task = _task(source.base, keys)
        tokenizer = _tokenizer(source, keys, task)
        template = None if task == MASKED else _template(run, keys, tokenizer)
        return Source(run, source, keys, task, tokenizer, None, template)
    adapter = Mergeable.find(run, trust_remote_code=trust_remote_code)
    if as_adapter and adapter.config.task_type not in (None, CAUSAL):
        raise ModelError(
            f"{run} is an adapter of another model than a causal language model ({adapter.config.task_type}), and "
            "servers take adapters of these alone; leave --adapter out."
        )
    task = adapter.config.task_type or CAUSAL
    template = None if task in (MASKED, CLASSIFIER) else _template(run, adapter.keys, adapter.tokenizer)
    return Source(run, source, adapter.keys, task, adapter.tokenizer, adapter, template)


def _tokenizer(source: ModelSource, keys: ModelKeys, task: str) -> Any:
    """Return a whole model's tokenizer, ready to sample with; that of an encoder needs no token that ends an answer."""
    if task == MASKED:
        return AutoTokenizer.from_pretrained(source.base, trust_remote_code=keys.trust_remote_code)
    return load_tokenizer(keys)


def _template(run: Path, keys: ModelKeys, tokenizer: Any) -> Template:
    """Return the template with which a model answers.

    Raises: ModelError if it fails.
    """
    try:
        return template_of(keys, tokenizer)
    except DataError as error:
        raise ModelError(f"{run}: {error}") from error


def _task(base: str, keys: ModelKeys) -> str:
    """Return the task of a whole model, by its configuration."""
    config = AutoConfig.from_pretrained(base, trust_remote_code=keys.trust_remote_code)
    if is_classifier(config):
        return CLASSIFIER
    for task in (CAUSAL, SEQ2SEQ, MASKED):
        try:
            require_task(config, base, task)
        except ModelError:
            continue
        return task
    raise ModelError(f"{base} is a {(config.architectures or ['model'])[0]}, which no stage makes.")


def write(source: Source, folder: Path, *, as_adapter: bool, tolerance: float | None, out: Path) -> Written:
    """Write a model's files into a folder.

    Args:
        tolerance: of merging, see `merge`. out: what messages call the folder.

    Raises: ModelError if what was written does not compute what the run computes.
    """
    if source.adapter is None:
        return _copy(source, folder)
    if as_adapter:
        return _adapter(source.adapter, folder, out)
    measured = write_merged(source.adapter, folder, tolerance, out=out)
    difference = measured["largest_logit_difference"]
    note = f"The adapter is merged into the base; the largest logit difference from both apart is {difference:.3g}."
    return Written({**_portable(source.adapter), **measured}, [note])


def _portable(adapter: Mergeable) -> dict[str, Any]:
    """Return what `merge.json` holds of base and adapter, without the folders of this machine."""
    report = adapter.report()
    return {**report, **{key: Path(report[key]).name for key in ("adapter", "base") if Path(report[key]).is_dir()}}


def _copy(source: Source, folder: Path) -> Written:
    """Copy a whole model; tokenizer and stop tokens are written as they are used."""
    place = Path(source.source.base)
    code = sorted(place.glob("*.py")) if source.keys.trust_remote_code else []
    for file in [place / CONFIG, place / INDEX, *sorted(place.glob(WEIGHTS)), *code]:
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
    source.tokenizer.save_pretrained(folder)
    if source.template is not None:
        write_generation(folder, stopping_at(source.template.stop_token_ids, read_generation(str(place))))
    return Written({"copied_from": place.name}, ["The weights are those of the run, byte for byte."])


def _adapter(adapter: Mergeable, folder: Path, out: Path) -> Written:
    """Write an adapter as vLLM takes it, and read it back."""
    model = load_causal_lm(adapter.keys, trainable=False)
    if is_accepted(adapter.adapter, adapter.config):
        shutil.copyfile(Path(adapter.adapter) / ADAPTER, folder / ADAPTER)
        shutil.copyfile(Path(adapter.adapter) / ADAPTER_CONFIG, folder / ADAPTER_CONFIG)
        rank, note, difference = adapter.config.r, "The adapter's matrices are those of the run.", 0.0
    else:
        expected = sample_logits(model, adapter.tokenizer)
        found = plain_lora(adapter, in_floats(adapter, model))
        found.save(folder, adapter.source.base)
        difference = _reread(adapter, folder, expected, out)
        rank = found.rank
        note = (
            f"The adapter was converted to plain LoRA of rank {rank} by {found.how}; logits differ by {difference:.3g}."
        )
    adapter.tokenizer.save_pretrained(folder)
    write_generation(folder, adapter.generation)
    notes = [note]
    if adapter.keys.load_in_4bit:
        kind = adapter.keys.bnb_4bit_quant_type
        notes.append(f"It was trained on a base in 4 bits ({kind}); serve it on the same.")
    if adapter.keys.load_in_8bit:
        notes.append(
            "It was trained on a base in 8 bits (int8) whose activations are not rounded. vLLM makes no such base, and "
            "transformers' own 8-bit layers round activations; the merged model computes what the run does."
        )
    return Written({**_portable(adapter), "rank": rank, "largest_logit_difference": difference}, notes, rank)


def _reread(adapter: Mergeable, folder: Path, expected: list[Any], out: Path) -> float:
    from peft import PeftModel

    base = load_base(adapter.cls, adapter.source.base, adapter.keys)
    tuned = PeftModel.from_pretrained(base, str(folder))
    difference = largest_difference(expected, sample_logits(tuned, adapter.tokenizer))
    if not difference <= min(EXACT, *TOLERANCES.values()):
        raise ModelError(
            f"{out}: the converted adapter differs from {adapter.run}: largest logit difference {difference:.3g}, "
            f"tolerance {EXACT:.3g}. Nothing was written; export the merged model: leave --adapter out."
        )
    return difference
