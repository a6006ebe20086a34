"""Merges an adapter into its base, and checks that the merged model gives the same logits."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from alignment.errors import ModelError
from alignment.ops.finite import first_not_finite
from alignment.policy.base import load_base, load_model
from alignment.policy.generation import write_generation
from alignment.policy.mergeable import Mergeable, added_to_base, naming_overflow
from alignment.policy.new_folder import beside, require_free, seal
from alignment.policy.quantised import dequantised
from alignment.rollout.context import context_of
from alignment.rollout.encoded import answer_logits
from alignment.rollout.steps import has_encoder

SAMPLES = (
    "The quick brown fox jumps over the lazy dog.",
    "What would you like to know? Please ask, and I will do my best to help you.\n\n1. First,",
    "def area(radius: float) -> float:\n    return 3.14159 * radius**2  # in square metres",
    "Es war einmal ein kleines Mädchen, das lebte mit seiner Großmutter am Rande des Waldes.",
    '{"name": "Ada", "born": 1815, "fields": ["mathematics", "computing"], "alive": false}',
)
SAMPLE_TOKENS = 256  # of each text at most
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}  # weights are rounded to this type


def merge(
    run: Path | str,
    out: Path | str,
    tolerance: float | None = None,
    *,
    trust_remote_code: bool = False,
    cut_from: Path | str | None = None,
) -> float:
    """Merge the adapter of `run` into its base, and write to `out` a model that plain transformers loads.

    The adapter is added in float32 and the weights are rounded once, to the base's dtype. An adapter that was trained
    on a base in 4 or 8 bits is merged into that base's dequantised weights.

    Args:
        run: a run directory or adapter, of a policy or a reward model. out: a folder that does not exist yet.
        tolerance: the largest accepted logit difference; None: `TOLERANCES` of the dtype that is written.
        trust_remote_code: run Python code that the base's folder brings; the user decides, never the folder.
        cut_from: the adapter that `run` is a part of; None: it is whole.

    Returns: the largest absolute logit difference, over `SAMPLES`, between the unmerged model and the merged one read
        back from disk, both computed in float32.
    Raises: ModelError if it exceeds `tolerance`; then nothing is left at `out`.
    """
    out = Path(out)
    adapter = Mergeable.find(run, trust_remote_code=trust_remote_code)
    require_free(out)
    with beside(out) as folder:
        measured = write_merged(adapter, folder, tolerance, out=out)
        origin = {"adapter": str(cut_from), "rank": adapter.config.r} if cut_from else {}
        seal(folder, {**adapter.report(), **origin, **measured})
    return measured["largest_logit_difference"]


def write_merged(adapter: Mergeable, folder: Path, tolerance: float | None, *, out: Path) -> dict[str, float]:
    """Write the merged model, its tokenizer and its generation config into a folder, and read it back.

    Args:
        tolerance: as in `merge`. out: what messages call the folder.

    Returns: the largest logit difference and the tolerance.
    Raises: ModelError as `merge`.
    """
    keys, tokenizer, dtype, cls = adapter.keys, adapter.tokenizer, adapter.dtype, adapter.cls
    accepted = TOLERANCES[dtype] if tolerance is None else tolerance
    unmerged = load_model(adapter.task, keys, trainable=False)
    expected = sample_logits(unmerged, tokenizer)
    with naming_overflow(adapter.run):
        merged = _merged(adapter, unmerged).to(dtype)
    odd = first_not_finite(merged.named_parameters())
    if odd is not None:
        raise ModelError(f"{adapter.run}: merged, {odd} holds NaN or infinity in {dtype}; nothing was written.")
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_generation(folder, adapter.generation)
    reloaded = load_base(cls, str(folder), keys.in_floats()).to(unmerged.device)
    difference = largest_difference(expected, sample_logits(reloaded, tokenizer))
    if not difference <= accepted:  # NaN is not
        raise ModelError(
            f"{out}: the merged model differs from {adapter.run}: largest logit difference {difference:.3g}, tolerance "
            f"{accepted:.3g}. Nothing was written. Raise --tolerance if that is near enough."
        )
    return {"largest_logit_difference": difference, "tolerance": accepted}


def _merged(adapter: Mergeable, unmerged: Any) -> Any:
    return added_to_base(in_floats(adapter, unmerged))


def in_floats(adapter: Mergeable, unmerged: Any) -> Any:
    """Return the model with its adapter on a base in float32: of one in 4 or 8 bits, on the dequantised weights."""
    if not adapter.keys.bits:
        return unmerged
    # PEFT would quantise the sum again, which rounds away most of what was learned.
    head: dict[str, Any] = {"num_labels": 1} if adapter.classifies else {}
    base = dequantised(load_base(adapter.cls, adapter.source.base, adapter.keys, **head))
    return PeftModel.from_pretrained(base, adapter.adapter)


@torch.no_grad()
def sample_logits(model: Any, tokenizer: Any) -> list[Tensor]:
    """Return the logits of each sample, one at a time to avoid padding."""
    model.eval()
    most = min(SAMPLE_TOKENS, context_of(model) or SAMPLE_TOKENS)
    results = []
    for text in SAMPLES:
        ids = tokenizer(text, return_tensors="pt").input_ids[:, :most].to(model.device)
        logits = answer_logits(model, ids, torch.ones_like(ids), ids) if has_encoder(model) else model(ids).logits
        results.append(logits.float().cpu())
    return results


def largest_difference(expected: list[Tensor], found: list[Tensor]) -> float:
    """Return the largest difference between two lists of logits."""
    return max((a - b).abs().max().item() for a, b in zip(expected, found, strict=True))
