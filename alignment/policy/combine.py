"""Combines LoRA adapters of one base into one adapter, by PEFT's `add_weighted_adapter`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import yaml
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from alignment.data.sampled import tokenizer_hash
from alignment.errors import ModelError, RecipeError, first_line
from alignment.policy.adapters import continue_adapter
from alignment.policy.base import load_base
from alignment.policy.generation import write_generation
from alignment.policy.held import RECIPE, held_as_trained
from alignment.policy.merge import TOLERANCES, largest_difference, sample_logits
from alignment.policy.mergeable import Mergeable
from alignment.policy.new_folder import beside, require_free, seal

Way = Literal["cat", "linear", "ties", "dare_linear", "dare_ties"]
WAYS: tuple[str, ...] = get_args(Way)
PRUNING = ("ties", "dare_linear", "dare_ties")  # keep a part of each adapter's numbers
RANDOM = ("dare_linear", "dare_ties")
COMBINED = "default"  # the name under which PEFT saves an adapter into the folder itself
REPORT = "combine.json"


@dataclass(frozen=True, slots=True)
class Weighted:
    """An adapter and its weight in the sum."""

    adapter: Mergeable
    weight: float


def parts_of(words: Sequence[str]) -> list[tuple[str, float]]:
    """Read `RUN:WEIGHT` words; without a weight it is 1.

    Raises: RecipeError.
    """
    found = []
    for word in words:
        run, colon, weight = word.rpartition(":")
        if not colon:
            run, weight = word, "1"
        try:
            number = float(weight)
        except ValueError:
            number = math.nan
        if not run or not math.isfinite(number) or number == 0 or abs(number) > 1000:
            raise RecipeError([f"{word!r} must be RUN:WEIGHT with a weight other than 0, as runs/a/dpo:0.7"])
        found.append((run, number))
    if len(found) < 2:
        raise RecipeError(["combine needs two adapters or more: alignment combine A:0.7 B:0.3 OUT"])
    return found


def combine(
    parts: Sequence[tuple[str, float]],
    out: Path | str,
    way: str = "cat",
    *,
    density: float | None = None,
    seed: int = 0,
    trust_remote_code: bool = False,
) -> float:
    """Write to `out` one adapter made of several.

    Args:
        parts: run or adapter folders, all LoRA on one base, and their weights. out: a folder that does not exist yet.
        way: `cat` sums the products of the matrices, Σ w ΔW, exactly: the ranks add up. The others work on A and B
            apart, as PEFT does, and need equal ranks: `linear`; `ties`, https://arxiv.org/abs/2306.01708; `dare_linear`
            and `dare_ties`, https://arxiv.org/abs/2311.03099.
        density: share of the numbers that `ties` and DARE keep. seed: of DARE's random choice.
        trust_remote_code: run Python code that the base's folder brings.

    Returns: the largest logit difference between the adapter read back from disk and what it must be: for `cat` the
        base with Σ w ΔW added to its weights, else PEFT's adapter before it was saved.
    Raises: ModelError if the adapters do not go together; RecipeError for options that are wrong.
    """
    _require_options(way, density)
    out = Path(out)
    found = [Weighted(Mergeable.find(run, trust_remote_code=trust_remote_code), weight) for run, weight in parts]
    _require_alike([part.adapter for part in found], way)
    require_free(out)
    first = found[0].adapter
    model = _loaded(found)
    names = [f"part_{place}" for place in range(len(found))]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _add(model, names, [part.weight for part in found], way, density)
    expected = _expected(model, first.tokenizer, way)
    with beside(out) as folder:
        for name in names:
            model.delete_adapter(name)
        model.save_pretrained(folder)
        first.tokenizer.save_pretrained(folder)
        write_generation(folder, first.generation)
        if held := held_as_trained(first.adapter):
            (folder / RECIPE).write_text(yaml.safe_dump(held), encoding="utf-8")
        reloaded = _on_base(model.unload(), first, str(folder))
        difference = largest_difference(expected, sample_logits(reloaded, first.tokenizer))
        tolerance = TOLERANCES[torch.float32]
        if not difference <= tolerance:
            raise ModelError(
                f"{out}: the combined adapter differs from the sum: largest logit difference {difference:.3g}, "
                f"tolerance {tolerance:.3g}. Nothing was written."
            )
        report = {
            "method": way,
            "parts": [{"weight": part.weight, **part.adapter.report()} for part in found],
            **({"density": density} if way in PRUNING else {}),
            **({"seed": seed} if way in RANDOM else {}),
            "largest_logit_difference": difference,
        }
        seal(folder, report, REPORT)
    return difference


def _require_options(way: str, density: float | None) -> None:
    faults = []
    if way not in WAYS:
        faults.append(f"--method {way!r} is none of {', '.join(WAYS)}")
    elif way in PRUNING and density is None:
        faults.append(f"--method {way} needs --density, the share of the numbers that is kept, as 0.5")
    elif way not in PRUNING and density is not None:
        faults.append(f"--density is for {', '.join(PRUNING)}; leave it out with --method {way}")
    if density is not None and not 0 < density <= 1:
        faults.append(f"--density {density} must be above 0 and at most 1")
    if faults:
        raise RecipeError(faults)


def _require_alike(adapters: Sequence[Mergeable], way: str) -> None:
    """Refuse adapters that cannot be added: of other types, bases, tokenizers, or with more than A and B."""
    first = adapters[0]
    facts: list[tuple[str, list[Any], str]] = [
        ("base", [each.identity["base_sha256"] for each in adapters], "combine adapters of one base"),
        ("tokenizer", [tokenizer_hash(each.tokenizer) for each in adapters], "train both with one tokenizer"),
        ("precision of the base", [each.keys.bits for each in adapters], "train both on a base held alike"),
    ]
    for each in adapters:
        _require_plain(each)
    if way != "cat":
        facts.append(("rank", [each.config.r for each in adapters], "use --method cat, in which ranks add up"))
    for what, values, remedy in facts:
        other = next((each for each, value in zip(adapters, values, strict=True) if value != values[0]), None)
        if other is not None:
            raise ModelError(f"{first.run} and {other.run} have different values of {what}; {remedy}.")


def _require_plain(adapter: Mergeable) -> None:
    config = adapter.config
    start = str(getattr(config, "init_lora_weights", True)).lower()
    odd = {
        "of another type than LoRA": config.peft_type != "LORA",
        "of DoRA, whose magnitudes cannot be added": getattr(config, "use_dora", False),
        "a reward model's, whose head is not LoRA": adapter.classifies,
        "with modules_to_save, which are whole modules": bool(getattr(config, "modules_to_save", None)),
        "with biases": getattr(config, "bias", "none") != "none" or getattr(config, "lora_bias", False),
        "with trained tokens": bool(getattr(config, "trainable_token_indices", None)),
        "with a rank_pattern": bool(getattr(config, "rank_pattern", None)),
        "begun from the base's own weights, which differ then": start.startswith(("pissa", "olora", "corda", "loftq")),
    }
    what = next((name for name, holds in odd.items() if holds), None)
    if what is not None:
        raise ModelError(
            f"{adapter.run} is an adapter {what}; only plain LoRA adapters can be combined. Merge it instead: "
            f"alignment merge {adapter.run} OUT."
        )


def _on_base(base: Any, adapter: Mergeable, folder: str) -> Any:
    return continue_adapter(base, folder, adapter.source.base, task="CAUSAL_LM", trainable=False)


def _loaded(parts: Sequence[Weighted]) -> PeftModel:
    """Return the base with all adapters, named part_0 and so on."""
    first = parts[0].adapter
    base = load_base(first.cls, first.source.base, first.keys)
    for part in parts:  # each is checked alone, as where a run loads it
        base = _on_base(base, part.adapter, part.adapter.adapter).unload()
    wrapped = PeftModel.from_pretrained(base, first.adapter, adapter_name="part_0")
    for place, part in enumerate(parts[1:], 1):
        wrapped.load_adapter(part.adapter.adapter, adapter_name=f"part_{place}")
    return wrapped


def _add(model: PeftModel, names: list[str], weights: list[float], way: str, density: float | None) -> None:
    settings = {"density": density} if way in PRUNING else {}
    try:
        model.add_weighted_adapter(names, weights, COMBINED, combination_type=way, **settings)
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"peft cannot combine the adapters by {way}: {first_line(error)}") from error
    if way == "cat":
        for part, weight in zip(names, weights, strict=True):
            _scale(model, part, weight)
    model.set_adapter(COMBINED)


def _scale(model: PeftModel, name: str, weight: float) -> None:
    for module in model.modules():
        if isinstance(module, LoraLayer) and name in module.scaling:
            module.scaling[name] *= weight


def _expected(model: PeftModel, tokenizer: Any, way: str) -> list[Tensor]:
    """Return the logits that the combined adapter must give."""
    if way != "cat":
        return sample_logits(model, tokenizer)
    parts = [name for name in model.peft_config if name != COMBINED]
    model.base_model.set_adapter(parts)  # PEFT adds the outputs of all active adapters
    found = sample_logits(model, tokenizer)
    model.set_adapter(COMBINED)
    return found
