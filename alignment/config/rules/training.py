"""What a trainer's keys need of one another, and what only a run would find out otherwise."""

import os
from collections.abc import Iterator

from alignment.config.faults import did_you_mean, shown
from alignment.config.methods import TUNING_METHODS
from alignment.config.rules.keys import Fault, Keys, Rule
from alignment.config.rules.patterns import USUAL_NAMES, WHOLE_LAYERS, fault_of_patterns
from alignment.config.schema.dpo import REFERENCE_FREE, DPORecipe

OF_LOSSES = {"simpo_gamma": ("simpo",), "cpo_alpha": ("cpo", "simpo")}  # keys, with the losses that read them
OF_REFERENCE = (  # keys of DPO that a loss without a reference does not read
    "precompute_ref_log_probs", "precompute_ref_batch_size", "sync_ref_model", "ref_model_mixup_alpha",
    "ref_model_sync_steps", "f_divergence_type", "f_alpha_divergence_coef",
)  # fmt: skip
UNREAD_WITHOUT_REFERENCE = {  # all keys of DPO that such a loss does not read, with the reason
    **dict.fromkeys(OF_REFERENCE, "which has no reference"),
    **dict.fromkeys(("label_smoothing", "ld_alpha", "use_weighting", "discopop_tau"), "whose loss does not read it"),
    "loss_weights": "which is not mixed with other losses",
}
HELD_OUT = ("eval_datasets", "max_eval_samples")
EVALUATION = ("eval_strategy", "eval_steps", "eval_on_start", "load_best_model_at_end", "metric_for_best_model")
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, of Linux and most other systems


def workers(keys: Keys) -> Iterator[Fault]:
    """Keys of the data loader's worker processes need such processes."""
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
    name, known = keys["metric_for_best_model"], keys.about.metrics
    if name is None and keys["save_strategy"] == "best" and not keys["load_best_model_at_end"]:
        yield ("save_strategy",), f"best needs metric_for_best_model, one of {', '.join(known)}"
    if known and isinstance(name, str) and name.removeprefix("eval_") not in known:
        near = did_you_mean(name.removeprefix("eval_"), known)
        yield ("metric_for_best_model",), f"must be one of {', '.join(known)}, found {shown(name)}{near}"


def held_out(keys: Keys) -> Iterator[Fault]:
    """Data for evaluation comes from one place, and what needs it has it."""
    if keys["eval_datasets"] and keys.given("test_split_size"):
        yield ("test_split_size",), "excludes eval_datasets; give one"
    if not _evaluates(keys) or keys["eval_datasets"] or keys.given("test_split_size"):
        return
    remedy = "needs data to evaluate on; give test_split_size or eval_datasets"
    if keys["eval_strategy"] not in (None, "no"):
        yield ("eval_strategy",), remedy
    for key in ("load_best_model_at_end", "eval_on_start"):
        if keys[key]:
            yield (key,), remedy
    if keys["save_strategy"] == "best":
        yield ("save_strategy",), remedy
    if keys.given("early_stopping_patience"):
        yield ("early_stopping_patience",), remedy


def unread(keys: Keys) -> Iterator[Fault]:
    """What a stage never looks at is refused, not ignored."""
    if not keys.about.held_out:
        for key in HELD_OUT:
            if keys.given(key) and keys[key] != []:
                yield (key,), f"is not read in stage {keys.stage}, which evaluates nothing; take it out"
    if keys.about.trains and not keys.about.held_out:
        for key in EVALUATION:
            if keys[key] not in (None, False, "no"):
                told = f"is not read in {keys.about.title}, which does not evaluate while it trains"
                yield (key,), f"{told}; stage evaluate does"


def best_model(keys: Keys) -> Iterator[Fault]:
    """The best model is found among evaluations, and kept where a checkpoint was written at one."""
    if not _evaluates(keys):
        return
    best, patience = keys["load_best_model_at_end"], keys.given("early_stopping_patience")
    evaluation, saving = keys["eval_strategy"] or "no", keys["save_strategy"] or "steps"
    if patience and not best:
        yield ("early_stopping_patience",), "needs load_best_model_at_end: true, or the best weights are lost"
    if (best or patience) and evaluation == "no":
        key = "load_best_model_at_end" if best else "early_stopping_patience"
        yield (key,), "needs eval_strategy steps or epoch; no evaluation takes place"
    elif best and saving not in ("best", evaluation):
        yield ("load_best_model_at_end",), f"needs save_strategy {evaluation}, as eval_strategy is; it is {saving}"
    elif best and evaluation == saving == "steps":
        every, kept = keys["eval_steps"] or keys["logging_steps"] or 10, keys["save_steps"] or 500
        if (every < 1) == (kept < 1) and (kept * 1_000_000) % (every * 1_000_000):
            yield (
                ("load_best_model_at_end",),
                f"needs save_steps to be a multiple of eval_steps; {kept} is not a multiple of {every}",
            )


def loss_mixture(keys: Keys) -> Iterator[Fault]:
    """DPO's losses and their weights go in pairs."""
    if keys["loss_type"] == []:
        yield ("loss_type",), "must have at least one entry"
    losses, weights = keys["loss_type"] or "sigmoid", keys["loss_weights"]
    count = len(losses) if isinstance(losses, list) else 1
    if weights is not None and len(weights) != count:
        yield ("loss_weights",), f"has {len(weights)} weights for {count} of loss_type; give one for each"
    elif weights and not any(weights):
        yield ("loss_weights",), "are all 0, so nothing would train"


def reference_free(keys: Keys) -> Iterator[Fault]:
    """A loss without a reference cannot be combined with others, and does not read every key of DPO."""
    if keys.cls is not DPORecipe:
        return
    losses = keys["loss_type"] or []
    losses = losses if isinstance(losses, list) else [losses]
    free = [loss for loss in losses if loss in REFERENCE_FREE]
    for key, owners in OF_LOSSES.items():
        if keys.changed(key) and not set(losses) & set(owners):
            yield (key,), f"has no effect without loss_type {' or '.join(owners)}; take it out"
    if not free:
        return
    if len(losses) > 1:
        yield ("loss_type",), f"{free[0]} cannot be mixed with other losses; give it alone"
    for key, reason in UNREAD_WITHOUT_REFERENCE.items():
        if keys.given(key) and keys[key] is not False:
            yield (key,), f"has no effect with loss_type {free[0]}, {reason}; take it out"


def unfit(keys: Keys) -> Iterator[Fault]:
    """What the Trainer does for one model and one row's labels, and a stage's trainer cannot."""
    about = keys.about
    if about.trains and keys["label_smoothing_factor"]:
        if about.rows == "rankings":
            told = f"is not read in stage {keys.stage}, whose labels are of pairs; use label_smoothing"
            yield ("label_smoothing_factor",), told
        elif about.rows == "unpaired":
            told = f"is not read in stage {keys.stage}; a column probability gives each answer's own"
            yield ("label_smoothing_factor",), told
        elif about.samples:
            told = f"is not read in {about.title}, which learns from scores and has no labels; take it out"
            yield ("label_smoothing_factor",), told
    if about.makes == "reward_model" and keys["eval_do_concat_batches"] is False:
        told = f"must be true in stage {keys.stage}, whose metrics are of all pairs together"
        yield ("eval_do_concat_batches",), told
    if about.sequences == 2 and keys["train_sampling_strategy"] in ("group_by_length", "batch_rebalance"):
        told = f"{keys['train_sampling_strategy']} needs one length a row, and {about.title}'s rows hold two answers"
        yield ("train_sampling_strategy",), f"{told}; use random"


def equal_passes(keys: Keys) -> Iterator[Fault]:
    """Two passes with the same weights give the same probabilities where a loss compares them."""
    title, why = keys.about.title, keys.about.ratio
    if not why:
        return
    if keys["lora_dropout"] and TUNING_METHODS[keys["peft_method"]].has_adapter:
        yield ("lora_dropout",), f"must be 0 in {title}: with dropout {why}"
    for field, value in keys["peft_config"].items():
        if field.endswith("dropout") and value:
            yield ("peft_config", field), f"must be 0 in {title}: with dropout {why}"
    if keys["neftune_noise_alpha"]:
        yield ("neftune_noise_alpha",), f"must not be set in {title}: with noise in the embeddings {why}; use it in SFT"


def disabled_dropout(keys: Keys) -> Iterator[Fault]:
    """The same of the key by which TRL turns dropout off."""
    if keys.about.ratio and keys["disable_dropout"] is False:
        yield ("disable_dropout",), f"must be true in {keys.about.title}: with dropout {keys.about.ratio}"


def _evaluates(keys: Keys) -> bool:
    """Whether the stage's trainer evaluates."""
    return keys.about.trains and keys.about.held_out


TRAINING_RULES: list[Rule] = [
    workers,
    module_patterns,
    output_folder,
    best_metric,
    unread,
    held_out,
    best_model,
    loss_mixture,
    reference_free,
    unfit,
    equal_passes,
    disabled_dropout,
]
