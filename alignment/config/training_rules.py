"""What a trainer's keys need of one another, and what only a run would find out otherwise."""

import os
from collections.abc import Iterator

from alignment.config.faults import did_you_mean, shown
from alignment.config.keys import Fault, Keys, Rule
from alignment.config.patterns import USUAL_NAMES, WHOLE_LAYERS, fault_of_patterns

LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, of Linux and most other systems
SPEEDS = ("runtime", "samples_per_second", "steps_per_second")
OF_TOKENS = ("loss", "entropy", "mean_token_accuracy", "num_tokens", *SPEEDS)
METRICS = {  # of an evaluation, by which a best model may be found
    "sft": OF_TOKENS,
    "dpo": (
        *OF_TOKENS, "rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected", "logps/chosen",
        "logps/rejected", "logits/chosen", "logits/rejected",
    ),
    "reward": (
        "loss", "accuracy", "accuracy_low", "accuracy_high", "accuracy_of_longer_answer", "brier", "entropy", "nll",
        "score_mean", "score_std", "length_pearson", "length_pearson_within_prompt", "length_spearman", "pairs",
        "pairs_decided", "prompts", *SPEEDS,
    ),
}  # fmt: skip


def workers(keys: Keys) -> Iterator[Fault]:
    """What data's own processes are told needs such processes."""
    if keys["dataloader_num_workers"]:
        return
    for key in ("dataloader_prefetch_factor", "dataloader_persistent_workers", "dataloader_multiprocessing_context"):
        if keys[key]:
            yield (key,), "needs dataloader_num_workers of 1 or more; without it no other process loads data"


def module_patterns(keys: Keys) -> Iterator[Fault]:
    """A text of modules is a regular expression, and one that ends."""
    for key in ("lora_target_modules", "optim_target_modules"):
        given = keys[key]
        if isinstance(given, str) and given.lower() not in WHOLE_LAYERS:
            message = fault_of_patterns([given], USUAL_NAMES)
            if message:
                yield (key,), message
        elif isinstance(given, list) and not given:
            yield (key,), "names no module; name some, or write all-linear"


def output_folder(keys: Keys) -> Iterator[Fault]:
    """A run's folder has a name that a file system takes."""
    folder = keys["output_dir"]
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in folder.split("/")) or len(folder) > LONGEST_PATH:
        yield ("output_dir",), f"no folder's name has more than {LONGEST_NAME} bytes, no path more than {LONGEST_PATH}"
    if not folder.isprintable():
        yield ("output_dir",), "holds a line break or another character that does not print; give it another name"


def best_metric(keys: Keys) -> Iterator[Fault]:
    """The best model is found by a metric that the stage's evaluation has."""
    name, known = keys["metric_for_best_model"], METRICS.get(keys.stage, ())
    if name is None and keys["save_strategy"] == "best" and not keys["load_best_model_at_end"]:
        yield ("save_strategy",), f"best needs metric_for_best_model, one of {', '.join(known)}"
    if known and isinstance(name, str) and name.removeprefix("eval_") not in known:
        near = did_you_mean(name.removeprefix("eval_"), known)
        yield ("metric_for_best_model",), f"must be one of {', '.join(known)}, found {shown(name)}{near}"


TRAINING_RULES: list[Rule] = [workers, module_patterns, output_folder, best_metric]
