"""Which numbers and texts the trainer configurations' keys take: their types alone accept any.

The libraries refuse wrong ones only while they run, or take them: `max_steps: 0` trains nothing and is "finished".
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alignment.config.faults import did_you_mean, shown
from alignment.config.rules.keys import Fault
from alignment.config.schema.dpo import REFERENCE_FREE
from alignment.config.yaml_text import Location

LEVELS = ("debug", "info", "warning", "error", "critical", "passive")


@dataclass(frozen=True, slots=True)
class Range:
    """From `least` to `most`."""

    least: float
    most: float
    open_below: bool = False  # more than `least`
    open_above: bool = False  # less than `most`
    also: float | None = None  # one more value, the default of some keys
    steps: bool = False  # below 1 a share of all steps, from 1 on a whole number of them

    def fault_of(self, value: float) -> str | None:
        """Return the fault of a number."""
        if value == self.also:
            return None
        if value < self.least or (self.open_below and value == self.least):
            words = "greater than" if self.open_below else "at least"
            return f"must be {words} {self.least:.10g}, found {shown(value)}"
        if value > self.most or (self.open_above and value == self.most):
            return f"must be {'less than' if self.open_above else 'at most'} {self.most:.10g}, found {shown(value)}"
        if self.steps and value > 1 and value != int(value):
            return f"must be a whole number of steps, or a share of them below 1, found {shown(value)}"
        return None


COUNT, SHARE, ROWS = Range(1, 10**9), Range(0, 1, open_above=True), Range(1, 10**6)
POSITIVE, NOT_NEGATIVE = Range(0, 10**6, open_below=True), Range(0, 10**6)
STEPS = Range(0, 10**9, open_below=True, steps=True)
RANGES: dict[str, Range] = {
    "per_device_train_batch_size": ROWS,
    "per_device_eval_batch_size": ROWS,
    "gradient_accumulation_steps": ROWS,
    "eval_accumulation_steps": ROWS,
    "precompute_ref_batch_size": ROWS,
    "num_train_epochs": POSITIVE,
    "max_steps": Range(1, 10**9, also=-1),
    "learning_rate": POSITIVE,
    "warmup_steps": Range(0, 10**9, steps=True),
    "weight_decay": Range(0, 10**3),
    "adam_beta1": SHARE,
    "adam_beta2": SHARE,
    "adam_epsilon": Range(0, 1),
    "max_grad_norm": Range(0, 10**9),
    "label_smoothing_factor": SHARE,
    "label_smoothing": Range(0, 0.5, open_above=True),
    "neftune_noise_alpha": Range(0, 10**3),
    "torch_empty_cache_steps": COUNT,
    "logging_steps": STEPS,
    "eval_steps": STEPS,
    "save_steps": STEPS,
    "eval_delay": Range(0, 10**9),
    "save_total_limit": ROWS,
    "data_seed": Range(0, 2**32 - 1),
    "dataloader_num_workers": Range(0, 256),
    "dataloader_prefetch_factor": Range(1, 1024),
    "dataset_num_proc": Range(1, 256),
    "ddp_bucket_cap_mb": ROWS,
    "ddp_timeout": Range(1, 10**7),
    "pad_to_multiple_of": Range(1, 4096),
    "router_aux_loss_coef": NOT_NEGATIVE,
    "beta": POSITIVE,
    "discopop_tau": POSITIVE,
    "ld_alpha": Range(0, 1),
    "f_alpha_divergence_coef": Range(-(10**3), 10**3),
    "ref_model_mixup_alpha": Range(0, 1),
    "ref_model_sync_steps": COUNT,
    "loss_weights": Range(-(10**6), 10**6),
}
CHOICES: dict[str, tuple[str, ...]] = {  # of keys that are plain text to their library
    "log_level": LEVELS,
    "log_level_replica": LEVELS,
    "pad_to_multiple_of": ("auto",),
    "f_divergence_type": ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"),
    "include_num_input_tokens_seen": ("all", "non_padding", "no"),
    "loss_type": (  # of DPO; SFT's are an enumeration
        "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
        "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm", *REFERENCE_FREE,
    ),
}  # fmt: skip


def not_finite(value: Any, at: Location = ()) -> Iterator[Fault]:
    """Numbers anywhere inside a value that are none, or infinite."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from not_finite(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from not_finite(inner, (*at, index))
    elif isinstance(value, float) and not math.isfinite(value):
        yield at, f"must be a finite number, found {value}"


def out_of_range(key: str, value: Any) -> Iterator[Fault]:
    """What is wrong with the value of one of the trainer configuration's keys, whose kind is right."""
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from (((key, index), message) for _, message in out_of_range(key, inner))
    elif isinstance(value, str):
        known = CHOICES.get(key, ())
        if known and value not in known:
            yield (key,), f"must be one of {', '.join(known)}, found {shown(value)}{did_you_mean(value, known)}"
    elif isinstance(value, int | float) and not isinstance(value, bool) and key in RANGES:
        message = RANGES[key].fault_of(value)
        if message:
            yield (key,), message
