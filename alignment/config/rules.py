"""Combinations of keys that cannot be."""

import importlib.util
import os
from collections.abc import Iterator

from alignment.config.combinations import broken_by_itself
from alignment.config.documents import Location
from alignment.config.faults import did_you_mean
from alignment.config.judges import CHATS, judges
from alignment.config.keys import Fault, Keys, Rule, Unknown
from alignment.config.library import trackers
from alignment.config.named_files import json_files
from alignment.config.ppo_rules import PPO_RULES
from alignment.config.training_rules import TRAINING_RULES

TRAINING = ("sft", "reward", "dpo")  # stages whose trainer evaluates
MODELS = ("model_name_or_path", "reward_model_path", "value_model_path")
LISTS = ("datasets", "eval_datasets", "perplexity_datasets", "candidates")
SCORERS = ("scorers", "watch_scorers")
HELD_OUT = ("eval_datasets", "max_eval_samples")
EVALUATION = ("eval_strategy", "eval_steps", "eval_on_start", "load_best_model_at_end", "metric_for_best_model")
LORA = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_modules_to_save", "use_rslora")
OF_PEOPLE = {"min_kappa", "min_accuracy", "min_accuracy_when_consistent", "max_length_bias", "max_ece"}
TRACKER_EXTRAS = ("tensorboard", "trackio")


def broken_rules(keys: Keys) -> list[Fault]:
    """Return what the rules find, leaving out those that touch a key already at fault."""
    found: list[Fault] = []
    for rule in [*RULES, *(PPO_RULES if keys.stage == "ppo" else [])]:
        try:
            found += list(rule(keys))
        except Unknown:
            continue
    return found


def folders(keys: Keys) -> Iterator[Fault]:
    """A run may not be written over what it reads: `overwrite` would delete it first."""
    output = os.path.abspath(keys["output_dir"])
    reads: list[tuple[Location, str]] = [((key,), keys[key]) for key in MODELS if keys.given(key)]
    for key in LISTS:
        inner = "model_name_or_path" if key == "candidates" else "path"
        reads += [((key, i, inner), entry[inner]) for i, entry in enumerate(keys[key] or [])]
    scorers = [((key, i), entry) for key in SCORERS for i, entry in enumerate(keys[key] or [])]
    for where, entry in scorers:
        models = [entry.get("model_name_or_path"), *(entry.get("reward_models") or [])]
        reads += [(where, path) for path in models if path]
    for at, path in reads:
        if os.path.exists(path) and os.path.commonpath([output, os.path.abspath(path)]) == output:
            yield (
                at,
                f"{path} lies in output_dir {keys['output_dir']}, which the run writes; give output_dir another folder",
            )


def precision(keys: Keys) -> Iterator[Fault]:
    """One half precision at most."""
    if keys["bf16"] and keys["fp16"]:
        yield ("fp16",), "excludes bf16; give one"


def reports(keys: Keys) -> Iterator[Fault]:
    """A tracker is one that transformers knows."""
    given, known = keys["report_to"], trackers()
    for name in given if isinstance(given, list) else [given]:
        if known and name not in known:
            yield ("report_to",), f"{name!r} is no tracker; give one of {', '.join(known)}{did_you_mean(name, known)}"
        elif name in TRACKER_EXTRAS and importlib.util.find_spec(name) is None:
            yield ("report_to",), f"{name} is not installed; run `pip install {name}`"
        elif keys.stage in ("label", "evaluate") and name not in ("wandb", "all", "none"):
            yield ("report_to",), f"{name} follows training alone; give stage {keys.stage} wandb, or take it out"


def adapters(keys: Keys) -> Iterator[Fault]:
    """LoRA's keys belong to LoRA."""
    if keys["peft_method"] != "full":
        return
    for key in LORA:
        if keys.changed(key):
            yield (key,), "has no effect with peft_method full; take it out, or use peft_method lora or dora"


def combinations(keys: Keys) -> Iterator[Fault]:
    """What cannot go together under any strategy."""
    for one in broken_by_itself(keys.stage, keys.__getitem__):
        yield (one.key,), f"{one.reason}; {one.remedy}"


def quantisation(keys: Keys) -> Iterator[Fault]:
    """The 4-bit details need 4 bits."""
    for key in ("bnb_4bit_quant_type", "use_bnb_nested_quant"):
        if keys.changed(key) and not keys["load_in_4bit"]:
            yield (key,), "has no effect without load_in_4bit: true"


def mixtures(keys: Keys) -> Iterator[Fault]:
    """Fractions normalise to one, so all of a mixture's entries have one or none has."""
    for key in ("datasets", "eval_datasets", "perplexity_datasets"):
        entries = keys[key] or []
        without = [i for i, entry in enumerate(entries) if entry.get("fraction") is None]
        if without and len(without) < len(entries):
            yield (key, without[0]), "has no fraction, though others of the list have; give all one, or none"


def held_out(keys: Keys) -> Iterator[Fault]:
    """Data for evaluation comes from one place, and what needs it has it."""
    if keys["eval_datasets"] and keys.given("test_split_size"):
        yield ("test_split_size",), "excludes eval_datasets; give one"
    if keys.stage not in TRAINING or keys["eval_datasets"] or keys.given("test_split_size"):
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
    if keys.stage in ("label", "ppo"):
        for key in HELD_OUT:
            if keys.given(key) and keys[key] != []:
                yield (key,), f"is not read in stage {keys.stage}, which evaluates nothing; take it out"
    if keys.stage == "ppo":
        for key in EVALUATION:
            if keys[key] not in (None, False, "no"):
                yield (key,), "is not read in PPO, which does not evaluate while it trains; stage evaluate does"


def best_model(keys: Keys) -> Iterator[Fault]:
    """The best model is found among evaluations, and kept where a checkpoint was written at one."""
    if keys.stage not in TRAINING:
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
                f"needs save_steps to be a multiple of eval_steps; {kept} is none of {every}",
            )


def loss_mixture(keys: Keys) -> Iterator[Fault]:
    """DPO's losses and their weights go in pairs."""
    if keys.stage == "dpo" and keys["loss_type"] == []:
        yield ("loss_type",), "must have at least one entry"
    losses, weights = keys["loss_type"] or "sigmoid", keys["loss_weights"]
    count = len(losses) if isinstance(losses, list) else 1
    if keys.stage == "dpo" and weights is not None and len(weights) != count:
        yield ("loss_weights",), f"has {len(weights)} weights for {count} of loss_type; give one for each"
    elif keys.stage == "dpo" and weights and not any(weights):
        yield ("loss_weights",), "are all 0, so nothing would train"


OF_PAIRS = "is not read in stage {stage}, whose labels are of pairs; use label_smoothing"
UNFIT = {  # keys of the Trainer that a stage's own trainer cannot do with, or does not read
    ("reward", "label_smoothing_factor"): OF_PAIRS,
    ("dpo", "label_smoothing_factor"): OF_PAIRS,
    ("ppo", "label_smoothing_factor"): "is not read in PPO, which learns from scores and has no labels; take it out",
}


def unfit(keys: Keys) -> Iterator[Fault]:
    """What the Trainer does for one model and one row's labels, and a stage's trainer cannot."""
    for (stage, key), told in UNFIT.items():
        if keys.stage == stage and keys[key]:
            yield (key,), told.format(stage=stage)
    if keys.stage == "reward" and keys["eval_do_concat_batches"] is False:
        yield ("eval_do_concat_batches",), "must be true in stage reward, whose metrics are of all pairs together"
    if keys.stage == "dpo" and keys["train_sampling_strategy"] in ("group_by_length", "batch_rebalance"):
        told = f"{keys['train_sampling_strategy']} needs one length a row, and DPO's rows hold two answers; use random"
        yield ("train_sampling_strategy",), told


RATIOS = {
    "ppo": ("PPO", "the ratio of new to old probabilities is noise"),
    "dpo": ("DPO", "the log ratio of the policy to its reference is noise, and does not start at 0"),
}


def equal_passes(keys: Keys) -> Iterator[Fault]:
    """Two passes with the same weights give the same probabilities where a loss compares them."""
    if keys.stage not in RATIOS:
        return
    stage, why = RATIOS[keys.stage]
    if keys["lora_dropout"] and keys["peft_method"] != "full":
        yield ("lora_dropout",), f"must be 0 in {stage}: with dropout {why}"
    if keys["neftune_noise_alpha"]:
        yield ("neftune_noise_alpha",), f"must not be set in {stage}: with noise in the embeddings {why}; use it in SFT"
    if keys.stage == "dpo" and keys["disable_dropout"] is False:
        yield ("disable_dropout",), f"must be true in {stage}: with dropout {why}"


def candidates(keys: Keys) -> Iterator[Fault]:
    """Tables tell policies apart by their names."""
    if keys.stage != "evaluate":
        return
    names = {keys["baseline_name"]: "the baseline"}
    for index, entry in enumerate(keys["candidates"]):
        if entry["name"] in names:
            yield ("candidates", index, "name"), f"{entry['name']} is also the name of {names[entry['name']]}"
        names.setdefault(entry["name"], f"candidates[{index}]")


SAMPLED = ["model_name_or_path", "num_generations", "max_new_tokens", "temperature", "top_p", "top_k", "load_in_4bit"]
SAMPLED += ["max_prompt_length", "chat_template", "eos_token", "test_split_size"]


def label_answers(keys: Keys) -> Iterator[Fault]:
    """Answers are sampled from a policy, or they are given in the data."""
    if keys.stage != "label":
        return
    if keys["responses"] == "sampled" and not keys["model_name_or_path"]:
        yield ("model_name_or_path",), "the required key is missing: name the policy, or set responses: given"
    for key in SAMPLED if keys["responses"] == "given" else []:
        if keys.changed(key):
            yield (key,), "has no effect with responses: given, where nothing is sampled; take it out"
    judge = keys["judge"]
    if keys["max_cost"] is not None and not any(one.get("prices") for one in [judge, *(judge.get("members") or [])]):
        yield ("max_cost",), "needs judge.prices, by which cost is counted; of a jury, those of its members"
    if keys["dry_run"] and keys["reparse"]:
        yield ("dry_run",), "excludes reparse, which makes no call either"


def label_pairs(keys: Keys) -> Iterator[Fault]:
    """K answers have K(K-1)/2 pairs."""
    if keys.stage == "label" and keys.given("pairs_per_prompt") and keys["responses"] == "sampled":
        answers, pairs = keys["num_generations"], keys["pairs_per_prompt"]
        if pairs > answers * (answers - 1) // 2:
            most = answers * (answers - 1) // 2
            yield ("pairs_per_prompt",), f"{pairs} is more than the {most} pairs of num_generations {answers}"


def revisions(keys: Keys) -> Iterator[Fault]:
    """Answers are revised by principles, by a model that writes."""
    if keys.stage != "label" or keys["revisions"] is None:
        return
    judge = keys["judge"]
    if judge["kind"] not in CHATS or judge.get("endpoint") == "systemone":
        yield ("revisions",), "needs a judge that writes, of kind openai, anthropic or local with endpoint chat"
    elif not judge.get("constitution"):
        yield ("revisions",), "needs judge.constitution, a YAML file of the principles to revise by"


def gates(keys: Keys) -> Iterator[Fault]:
    """A gate has a limit, and what is compared with people needs people."""
    gate = keys["gate"] if keys.stage == "label" else None
    if not gate:
        return
    limits = [key for key in gate if key.startswith(("min_", "max_")) and key != "min_comparisons"]
    limits = [key for key in limits if gate[key] is not None]
    if not limits:
        yield ("gate",), "has no limit, so every judge would pass; give one, min_kappa for example"
    for key in limits:
        if key in OF_PEOPLE and not gate.get("gold"):
            yield ("gate", key), "compares the judge with people; give gate.gold, a file of their preferences"


RULES: list[Rule] = [
    json_files,
    *TRAINING_RULES,
    folders,
    unread,
    precision,
    reports,
    adapters,
    combinations,
    quantisation,
    mixtures,
    held_out,
    best_model,
    loss_mixture,
    judges,
    unfit,
    equal_passes,
    candidates,
    label_answers,
    label_pairs,
    revisions,
    gates,
]
