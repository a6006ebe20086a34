"""Merges an adapter into its base, and checks that the merged model gives the same logits."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from alignment.config.schema import ModelKeys
from alignment.data.template import Template
from alignment.errors import ModelError
from alignment.ops.finite import first_not_finite
from alignment.policy.adapter_files import read_adapter_config
from alignment.policy.base import (
    ModelSource,
    checkpoint_dtype,
    load_base,
    load_causal_lm,
    load_sequence_classifier,
    load_tokenizer,
    resolve_model,
)
from alignment.policy.generation import read_generation, stopping_at, write_generation
from alignment.policy.held import held_as_trained
from alignment.policy.methods import method_of
from alignment.policy.saved_files import WHOLE, mark_of
from alignment.policy.tied import untie

SAMPLES = (
    "The quick brown fox jumps over the lazy dog.",
    "What would you like to know? Please ask, and I will do my best to help you.\n\n1. First,",
    "def area(radius: float) -> float:\n    return 3.14159 * radius**2  # in square metres",
    "Es war einmal ein kleines Mädchen, das lebte mit seiner Großmutter am Rande des Waldes.",
    '{"name": "Ada", "born": 1815, "fields": ["mathematics", "computing"], "alive": false}',
)
SAMPLE_TOKENS = 256  # of each text at most
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}  # weights are rounded to this type
REPORT = "merge.json"


def merge(
    run: Path | str, out: Path | str, tolerance: float | None = None, *, trust_remote_code: bool = False
) -> float:
    """Merge the adapter of `run` into its base, and write to `out` a model that plain transformers loads.

    The adapter is added in float32 and the weights are rounded once, to the base's dtype. An adapter that was trained
    on a 4-bit base is merged into that base's dequantised weights.

    Args:
        run: a run directory or adapter, of a policy or a reward model. out: a folder that does not exist yet.
        tolerance: the largest accepted logit difference; None: `TOLERANCES` of the dtype that is written.
        trust_remote_code: run Python code that the base's folder brings; the user decides, never the folder.

    Returns: the largest absolute logit difference, over `SAMPLES`, between the unmerged model and the merged one read
        back from disk, both computed in float32.
    Raises: ModelError if it exceeds `tolerance`; then nothing is left at `out`.
    """
    if not Path(run).is_dir():
        raise ModelError(f"{run}: no such folder; name a run or adapter folder.")
    source = resolve_model(str(run))
    if source.adapter is None:
        raise ModelError(f"{run} is a whole model already; there is no adapter to merge.")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out} exists already; name a folder that does not.")
    keys = _keys(source.adapter, trust_remote_code)
    config = read_adapter_config(source.adapter)
    if not method_of(config).merges:
        raise ModelError(
            f"{run} is an adapter of {method_of(config).title}, which cannot be added to a base's weights."
        )
    classifies = config.task_type == "SEQ_CLS"
    cls = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
    tokenizer = load_tokenizer(keys)
    stops = Template(tokenizer, None, keys.eos_token).stop_token_ids
    generation = stopping_at(stops, read_generation(source.adapter, source.base))
    dtype = checkpoint_dtype(source.base, keys)
    accepted = TOLERANCES[dtype] if tolerance is None else tolerance

    unmerged = (load_sequence_classifier if classifies else load_causal_lm)(keys, trainable=False)
    expected = _logits(unmerged, tokenizer)
    merged = _merged(cls, unmerged, keys, source).to(dtype)
    odd = first_not_finite(merged.named_parameters())
    if odd is not None:
        raise ModelError(f"{run}: merged, {odd} holds NaN or infinity in {dtype}; nothing was written.")
    with _beside(out) as folder:
        merged.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_generation(folder, generation)
        reloaded = load_base(cls, str(folder), keys.model_copy(update={"load_in_4bit": False})).to(unmerged.device)
        difference = _largest_difference(expected, _logits(reloaded, tokenizer))
        if not difference <= accepted:  # NaN is not
            raise ModelError(
                f"{out}: the merged model differs from {run}: largest logit difference {difference:.3g}, tolerance "
                f"{accepted:.3g}. Nothing was written. Raise --tolerance if that is near enough."
            )
        report = {
            "adapter": source.adapter,
            "base": source.base,
            "base_weights": "4-bit, dequantised" if keys.load_in_4bit else "as they are",
            "dtype": str(dtype).removeprefix("torch."),
            "largest_logit_difference": difference,
            "tolerance": accepted,
        }
        (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        mark = mark_of(folder, [file.name for file in folder.iterdir() if file.is_file()])
        (folder / WHOLE).write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")
    return difference


def _keys(adapter: str, trust_remote_code: bool) -> ModelKeys:
    """Return how the run held its base; for an adapter from elsewhere the base is not quantised."""
    given = {"model_name_or_path": adapter, "dtype": "float32", "trust_remote_code": trust_remote_code}
    return ModelKeys(**{**held_as_trained(adapter), **given})


def _merged(cls: Any, unmerged: Any, keys: ModelKeys, source: ModelSource) -> Any:
    if not keys.load_in_4bit:
        return _untied(unmerged).merge_and_unload(safe_merge=True)
    # PEFT would quantise the sum again, which rounds away most of what was learned.
    head: dict[str, Any] = {"num_labels": 1} if cls is AutoModelForSequenceClassification else {}
    base = load_base(cls, source.base, keys, **head).dequantize(dtype=torch.float32)
    return _untied(PeftModel.from_pretrained(base, source.adapter)).merge_and_unload(safe_merge=True)


def _untied(wrapped: Any) -> Any:
    """Untie the output layer if LoRA adapts the embeddings: the adapter is no part of the output layer."""
    base = wrapped.get_base_model()
    if isinstance(base.get_input_embeddings(), LoraLayer):
        untie(base)
    return wrapped


@torch.no_grad()
def _logits(model: Any, tokenizer: Any) -> list[Tensor]:
    """Return the logits of each sample, one at a time to avoid padding."""
    model.eval()
    results = []
    for text in SAMPLES:
        ids = tokenizer(text, return_tensors="pt").input_ids[:, :SAMPLE_TOKENS].to(model.device)
        results.append(model(input_ids=ids).logits.float().cpu())
    return results


def _largest_difference(expected: list[Tensor], found: list[Tensor]) -> float:
    return max((a - b).abs().max().item() for a, b in zip(expected, found, strict=True))


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """Yield a folder that is renamed to `out` at the end, or removed after an error."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise ModelError(f"{out} cannot be written: {error.strerror}; name another folder.") from error
    try:
        yield folder
        folder.chmod(0o755)
        os.replace(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
