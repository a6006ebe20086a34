"""Reads an adapter's configuration: adapter_config.json, whose keys are typed and bounded by the tuning method."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peft import PeftConfig

from alignment.config.peft_types import REFUSED
from alignment.config.tasks import AUTO_CLASSES
from alignment.errors import ModelError, first_line
from alignment.policy.methods import family_of
from alignment.policy.model_files import ADAPTER_CONFIG, Fault, read_object, refuse
from alignment.strict_json import shown

LONGEST_PATH = 4096


def read_adapter_config(adapter: str | Path) -> Any:
    """Read an adapter's configuration, from a folder or the Hub id of an adapter that is in the cache.

    Returns: PEFT's configuration, of the class of its tuning method.
    Raises: ModelError with file and key if no tuning method builds such an adapter, or a value is impossible.
    """
    file = adapter_config_file(adapter)
    found = read_object(file)
    refuse(file, _faults(found))
    try:
        return PeftConfig.from_pretrained(str(file.parent))
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise ModelError(f"{file} is not a configuration that peft reads: {first_line(error)}.") from error


def adapter_config_file(adapter: str | Path) -> Path:
    """Return the path of an adapter's configuration.

    Raises: ModelError if there is none.
    """
    from transformers.utils import cached_file

    if Path(adapter).is_dir():
        return Path(adapter) / ADAPTER_CONFIG
    try:
        return Path(cached_file(str(adapter), ADAPTER_CONFIG))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{adapter} holds no {ADAPTER_CONFIG}: {first_line(error)}") from error


def named_base(file: Path) -> str:
    """Return the model that an adapter's configuration names as its base: a path or a Hub id.

    Raises: ModelError if it names none.
    """
    base = read_object(file).get("base_model_name_or_path")
    if not isinstance(base, str) or not base or len(base) > LONGEST_PATH or not base.isprintable():
        raise ModelError(
            f"{file} does not name base_model_name_or_path, the model the adapter belongs to; add it "
            f"(found {shown(base)})."
        )
    return base


def _faults(found: dict[str, Any]) -> Iterator[Fault]:
    kind = found.get("peft_type")
    family = family_of(kind) if isinstance(kind, str) else None
    if family is None:
        what = "is missing" if kind is None else f"is {shown(kind)}"
        reason = REFUSED.get(kind.lower()) if isinstance(kind, str) else None
        told = f"which cannot be used: {reason}" if reason else "which no tuning method builds (docs/tuning.md)"
        yield "peft_type", f"{what}, {told}. Merge the adapter with peft first, and train on"
    if found.get("task_type") not in (None, *AUTO_CLASSES):
        yield (
            "task_type",
            f"is {shown(found['task_type'])}; it must be CAUSAL_LM for a policy, SEQ_CLS for a reward model, "
            "SEQ_2_SEQ_LM for an encoder-decoder model, FEATURE_EXTRACTION for a masked language model",
        )
    if family is not None:
        yield from family.faults(found)
