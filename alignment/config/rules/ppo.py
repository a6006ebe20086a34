"""Combinations of PPO's keys that are refused."""

import os
from collections.abc import Iterator

from alignment.config.engines import OWN_LOOP
from alignment.config.estimators import ADVANTAGE_ESTIMATORS
from alignment.config.faults import did_you_mean
from alignment.config.methods import TUNING_METHODS
from alignment.config.rules.keys import Fault, Keys, Rule
from alignment.config.rules.scorers import score_sources, watchers

TRAINER_BATCH = 8  # per_device_train_batch_size of transformers where none is given
COLOCATED = (
    "vllm_gpu_memory_utilization",
    "vllm_tensor_parallel_size",
    "vllm_max_model_length",
    "vllm_enable_sleep_mode",
)
OTHER_ENGINES = ("importance_sampling_cap", "engine_check_updates", "engine_tolerance")  # not transformers
VALUE = (
    "value_model",
    "value_model_path",
    "value_peft_method",
    "value_learning_rate",
    "value_warmup_updates",
    "vf_coef",
    "cliprange_value",
    "lam_value",
    "bootstrap_truncated",
)
VLLM = ("vllm_mode", "vllm_sync", "vllm_server_base_url", *COLOCATED)


def schedule(keys: Keys) -> Iterator[Fault]:
    """The number of steps follows from the number of answers."""
    title = keys.about.title
    for key, words in {
        "num_train_epochs": f"total_episodes gives the length of the run, {_epochs(keys)} how often answers are used",
        "max_steps": "total_episodes gives the length of the run",
        "logging_steps": "it logs once an update",
        "logging_strategy": "it logs once an update",
        "gradient_accumulation_steps": "it follows from rollout_batch_size, num_mini_batches and "
        "per_device_train_batch_size",
    }.items():
        if keys.given(key):
            yield (key,), f"is not set in {title}; {words}"


def batches(keys: Keys) -> Iterator[Fault]:
    """PPO's batches nest: microbatches in minibatches in the rollout batch in the run."""
    batch, parts, total = keys["rollout_batch_size"], keys["num_mini_batches"], keys["total_episodes"]
    if batch > total:
        yield ("rollout_batch_size",), f"{batch} is more than total_episodes {total}; not one update would be made"
    if batch % parts:
        yield (
            ("num_mini_batches",),
            f"{parts} does not divide rollout_batch_size {batch}; use {_divisors(batch, parts)}",
        )
        return
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    micro, mini = keys["per_device_train_batch_size"] or TRAINER_BATCH, batch // parts
    if isinstance(micro, int) and micro > 0 and mini % (micro * processes):
        share = f"{mini} answers" + (f" on {processes} processes" if processes > 1 else "")
        use = f"use {_divisors(mini // processes, micro)}"
        if mini % processes:
            use = f"make rollout_batch_size / num_mini_batches a multiple of {processes}, or take as many as divide it"
        found = micro if keys.given("per_device_train_batch_size") else f"{micro}, the default,"
        yield ("per_device_train_batch_size",), f"{found} does not divide the minibatch of {share}; {use}"


def groups(keys: Keys) -> Iterator[Fault]:
    """The answers to one prompt are all in one rollout, and an estimator that compares them has several."""
    batch, size = keys["rollout_batch_size"], keys["num_generations"]
    if batch % size:
        yield ("num_generations",), f"{size} does not divide rollout_batch_size {batch}; use {_divisors(batch, size)}"
    if keys["dynamic_sampling"] and size == 1:
        yield ("dynamic_sampling",), "compares the answers to one prompt; set num_generations to 2 or more"
    if not keys["dynamic_sampling"] and keys.changed("dynamic_sampling_max_rounds"):
        yield ("dynamic_sampling_max_rounds",), "has no effect without dynamic_sampling: true"
    name = keys["advantage_estimator"]
    if size == 1 and name in ADVANTAGE_ESTIMATORS and ADVANTAGE_ESTIMATORS[name].compares:
        yield (
            ("num_generations",),
            f"1 gives advantage_estimator {name} no other answer to compare with; use 2 or more",
        )


def steps(keys: Keys) -> Iterator[Fault]:
    """Which of an update's steps are taken."""
    warmup, updates = keys["value_warmup_updates"] or 0, keys["total_episodes"] // keys["rollout_batch_size"]
    if warmup and warmup >= updates:
        yield ("value_warmup_updates",), f"{warmup} leaves none of the run's {updates} updates to the policy"
    if keys.given("target_kl") and keys["fp16"]:
        yield ("target_kl",), "needs steps without gradients, which the loss scaler of fp16 refuses; use bf16"
    epochs = keys[_epochs(keys)]
    if keys.given("target_kl") and epochs * keys["num_mini_batches"] < 3:
        yield (
            ("target_kl",),
            "has no effect: an update of fewer than 3 steps is over before one can be skipped",
        )


def truncated(keys: Keys) -> Iterator[Fault]:
    """An answer that does not train needs no reward."""
    estimator = ADVANTAGE_ESTIMATORS.get(str(keys["advantage_estimator"]))
    compares = estimator is None or estimator.compares  # a truncated answer's reward is part of its group's mean
    for key in ("missing_eos_penalty", "bootstrap_truncated") if keys["mask_truncated_completions"] else ():
        if keys[key] and not (compares and key == "missing_eos_penalty"):
            yield (key,), "has no effect with mask_truncated_completions: true, which trains on no such answer"


def normalisation(keys: Keys) -> Iterator[Fault]:
    """Only reward models have a mean and standard deviation from their training."""
    if keys["normalize_scores"] != "reward_model":
        return
    for index, entry in enumerate(keys["scorers"]):
        if entry["kind"] not in ("reward_model", "ensemble"):
            yield (
                ("normalize_scores",),
                f"reward_model needs reward models, and scorers[{index}] is of kind {entry['kind']}; use running",
            )


def kl(keys: Keys) -> Iterator[Fault]:
    """The KL's gradient points to the reference, and a coefficient that adapts can."""
    if keys["kl_placement"] == "loss" and keys["kl_estimator"] == "k1":
        yield (
            ("kl_estimator",),
            "k1 has a gradient of mean zero in the loss, which holds nothing back; use k2, whose gradient is the KL's, "
            "or k3, or kl_placement reward",
        )
    horizon, batch = keys["adaptive_kl_horizon"], keys["rollout_batch_size"]
    if not keys.given("adaptive_kl_target"):
        if keys.changed("adaptive_kl_horizon"):
            yield ("adaptive_kl_horizon",), "has no effect without adaptive_kl_target"
        return
    if keys["kl_coef"] == 0:
        yield ("kl_coef",), "0 stays 0 however it adapts; adaptive_kl_target needs a coefficient to start from"
    if horizon < batch:
        yield ("adaptive_kl_horizon",), f"{horizon} is less than rollout_batch_size {batch}, one update's answers"


def engine(keys: Keys) -> Iterator[Fault]:
    """The keys of vLLM belong to vLLM, and a server has an address."""
    if keys["rollout_engine"] != "transformers" and not keys["ds3_gather_for_generation"]:
        yield (
            ("ds3_gather_for_generation",),
            f"{keys['rollout_engine']} cannot sample with weights in shards; set it to true, or rollout_engine to "
            "transformers",
        )
    if keys["cache_implementation"] == "static":
        if keys["rollout_engine"] not in OWN_LOOP:
            yield ("cache_implementation",), f"has no effect with rollout_engine {keys['rollout_engine']}; take it out"
        elif not keys["ds3_gather_for_generation"]:
            yield (
                ("cache_implementation",),
                "static cannot sample with weights in shards; set ds3_gather_for_generation: true, or use dynamic",
            )
    for key in OTHER_ENGINES:
        if keys["rollout_engine"] == "transformers" and keys.changed(key):
            yield (key,), "has no effect with rollout_engine transformers; take it out"
    if keys["engine_check_updates"] is None and keys.given("engine_tolerance"):
        yield ("engine_tolerance",), "has no effect with engine_check_updates: null; take it out"
    if keys["rollout_engine"] != "vllm":
        for key in VLLM:
            if keys.changed(key):
                yield (key,), f"has no effect with rollout_engine {keys['rollout_engine']}; take it out"
        return
    server = keys["vllm_mode"] == "server"
    if server and not keys.given("vllm_server_base_url"):
        yield ("vllm_mode",), "server needs vllm_server_base_url, such as http://localhost:8000"
    for key in COLOCATED if server else ("vllm_server_base_url",):
        if keys.changed(key):
            yield (key,), f"has no effect with vllm_mode {keys['vllm_mode']}; take it out"


def estimator(keys: Keys) -> Iterator[Fault]:
    """The estimator is known, and an estimator without a value has no keys of the value."""
    if not keys.exists("advantage_estimator"):
        return
    name = keys["advantage_estimator"]
    entry = ADVANTAGE_ESTIMATORS.get(name)
    if entry is None:
        near = did_you_mean(name, ADVANTAGE_ESTIMATORS)
        yield (
            ("advantage_estimator",),
            f"{name!r} is not an estimator; give one of {', '.join(ADVANTAGE_ESTIMATORS)}{near}",
        )
    elif not entry.uses_value:
        for key in VALUE:
            if keys.changed(key):
                yield (key,), f"has no effect with advantage_estimator {name}, which uses no value; take it out"
        read = {key for each in ADVANTAGE_ESTIMATORS.values() for key in each.keys} - {*VALUE, *entry.keys}
        for key in sorted(read):
            if keys.changed(key):
                yield (key,), f"has no effect with advantage_estimator {name}; take it out"


def value(keys: Keys) -> Iterator[Fault]:
    """A separate value model is named, and its keys belong to it."""
    if not keys.exists("value_model"):
        return
    entry = ADVANTAGE_ESTIMATORS.get(keys["advantage_estimator"])
    if entry is not None and not entry.uses_value:
        return
    if keys["value_model"] == "model":
        if not keys.given("value_model_path"):
            yield ("value_model",), "model needs value_model_path, a reward model or language model"
        return
    name, adapter = keys["value_peft_method"], keys["value_model"] == "adapter"
    if adapter and name is not None and not TUNING_METHODS[name].has_adapter:
        yield ("value_peft_method",), f"{name} trains no adapter; name another method, or write value_model: model"
    for key in ("value_model_path",) if adapter else ("value_model_path", "value_peft_method"):
        if keys.given(key):
            yield (key,), f"has no effect with value_model {keys['value_model']}; write value_model: model"


def _epochs(keys: Keys) -> str:
    """Return the stage's key for the passes over a rollout."""
    return next(key for key in ("num_ppo_epochs", "num_iterations") if keys.exists(key))


def _divisors(number: int, near: int) -> str:
    """Return the nearest divisors below and above a number that is not a divisor."""
    all_of = [d for d in range(1, number + 1) if number % d == 0]
    around = [max((d for d in all_of if d < near), default=0), min((d for d in all_of if d > near), default=0)]
    return " or ".join(str(d) for d in around if d)


PPO_RULES: list[Rule] = [
    schedule,
    batches,
    groups,
    steps,
    truncated,
    normalisation,
    kl,
    engine,
    score_sources,
    watchers,
    estimator,
    value,
]
