"""Switches a merged model from one adapter to another: base + A becomes base + B, bit for bit.

Nothing is subtracted: (W + ΔA) - ΔA differs from W by rounding, which grows with every switch. The base's weights are
read again from its files, one layer at a time.
"""

import shutil
from pathlib import Path

import torch
from torch import Tensor

from alignment.errors import ModelError
from alignment.policy.generation import write_generation
from alignment.policy.mergeable import Mergeable
from alignment.policy.model_files import GENERATION, check_model_files, read_object
from alignment.policy.new_folder import REPORT, beside, require_free, seal
from alignment.policy.saved_files import WHOLE, require_weights_as_saved
from alignment.policy.streamed import Streamed, stream
from alignment.policy.tensor_files import TensorFiles, write_tensors
from alignment.policy.weight_files import INDEX, listed
from alignment.strict_json import shown

ROUNDING_STEPS = 2  # of a type, by which a sum may differ where another processor computed it


def switch(
    model: Path | str,
    old: Path | str,
    new: Path | str,
    out: Path | str | None = None,
    *,
    trust_remote_code: bool = False,
) -> Path:
    """Write base + `new` in place of `model`, which is base + `old`.

    Args:
        model: a folder that `alignment merge` or this function wrote. old: the run or adapter in it. new: another on
            the same base. out: a folder that does not exist yet; None: `model` is replaced.
        trust_remote_code: run Python code that the base's folder brings.

    Returns: the folder.
    Raises: ModelError if `model` is not base + `old`, or the two adapters are of different bases or tasks, or cannot be
        merged; then nothing is written.
    """
    model = Path(model)
    out = model if out is None else Path(out)
    merged, given, wanted = _verified(model, old, new, trust_remote_code)
    if out != model:
        require_free(out)
    _require_sum(model, merged, stream(given))
    streamed = stream(wanted)
    with beside(out, replaces=out == model) as folder:
        write_tensors(folder, streamed.shapes(), wanted.dtype, streamed.tensors())
        streamed.config.save_pretrained(folder)
        wanted.tokenizer.save_pretrained(folder)
        _copy_generation(wanted, folder)
        if out == model:
            _keep_others(model, folder)
        seal(folder, {**wanted.report(), "switched_from": given.adapter})
    return out


def _verified(
    model: Path, old: Path | str, new: Path | str, trust_remote_code: bool
) -> tuple[TensorFiles, Mergeable, Mergeable]:
    """Compare files and manifests of a merged model and of the two adapters, before reading weights."""
    if not model.is_dir():
        raise ModelError(f"{model}: no such folder; name a model that alignment merge wrote.")
    check_model_files(model)
    require_weights_as_saved(model)
    merged = TensorFiles(model)
    given, wanted = (Mergeable.find(run, trust_remote_code=trust_remote_code) for run in (old, new))
    _require_identity(model, given)
    if given.identity["base_sha256"] != wanted.identity["base_sha256"]:
        raise ModelError(
            f"{new} is an adapter of another base ({wanted.source.base}) than {old} ({given.source.base}); switch "
            f"between adapters of one base, or merge it: alignment merge {new} OUT."
        )
    if given.classifies != wanted.classifies:
        kinds = [f"{each.run} is a {'reward model' if each.classifies else 'policy'}'s" for each in (given, wanted)]
        raise ModelError(
            f"{' and '.join(kinds)}; a switch keeps the model's task. Merge it instead: alignment merge {new} OUT."
        )
    return merged, given, wanted


def _require_identity(model: Path, given: Mergeable) -> None:
    """Refuse a model whose own record names another base or adapter."""
    report = read_object(model / REPORT) if (model / REPORT).is_file() else {}
    for key, what in (("base_sha256", "base"), ("adapter_sha256", "adapter")):
        recorded, found = report.get(key), given.identity[key]
        if recorded not in (None, found) and not str(recorded).startswith("hub:"):
            place = given.adapter if what == "adapter" else given.source.base
            raise ModelError(
                f"{model} was merged from another {what} than {place}: its {REPORT} records {shown(recorded[:12])}, "
                f"and this one is {found[:12]}. Name the adapter that it was merged from as --from."
            )


def _require_sum(model: Path, merged: TensorFiles, given: Streamed) -> None:
    """Refuse a model whose weights are not base + adapter, up to rounding."""
    expected = given.shapes()
    odd = set(expected) ^ set(merged)
    if odd:
        raise ModelError(
            f"{model} is not {given.adapter.source.base} + {given.adapter.run}: {listed(odd)} is in one of them alone."
        )
    for name, tensor in given.tensors():
        found = merged.get(name)
        if found.shape != tensor.shape or found.dtype != tensor.dtype or not _equal(found, tensor):
            raise ModelError(
                f"{model} is not {given.adapter.source.base} + {given.adapter.run}: {name} differs. Name the adapter "
                "that it was merged from as --from, or merge anew: alignment merge."
            )
        merged.forget(name)


def _equal(found: Tensor, wanted: Tensor) -> bool:
    """Whether two tensors of one type are equal up to the rounding of their type and of a sum in float32."""
    if torch.equal(found, wanted):
        return True
    step = torch.finfo(found.dtype).eps * ROUNDING_STEPS
    a, b = found.float(), wanted.float()
    return bool(((a - b).abs() <= step * b.abs() + 1e-6 * b.abs().max()).all())


def _copy_generation(wanted: Mergeable, folder: Path) -> None:
    own = Path(wanted.source.base, GENERATION)
    if own.is_file():
        shutil.copyfile(own, folder / GENERATION)
    write_generation(folder, wanted.generation)


def _keep_others(model: Path, folder: Path) -> None:
    """Copy the other files of a model's folder, such as a model card."""
    for file in model.iterdir():
        written = file.suffix == ".safetensors" or file.name in (INDEX, WHOLE, REPORT)
        if not written and not (folder / file.name).exists():
            (shutil.copytree if file.is_dir() else shutil.copy2)(file, folder / file.name)
