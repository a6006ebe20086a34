"""Keys of transformers' Trainer as peers write them: older names, and what is decided elsewhere here."""

from typing import Any

from alignment.config.faults import shown
from alignment.config.loading import library_keys
from alignment.config.schema import STAGES
from alignment.importing.conversion import Conversion
from alignment.importing.keys import OFF_HERE, Drop, Key, Ours, Refuse, converted, dropped, each, refused, renamed, same
from alignment.importing.values import (
    FASTER,
    LAUNCHER,
    REMOTE_CODE,
    accelerate,
    by_length,
    deepspeed,
    fsdp,
    threads,
    warmup,
)

ONLINE = ("ppo", "grpo", "rloo")
OFFLINE = ("pretrain", "sft", "reward", "dpo", "kto")
EXPERTS = "router_aux_loss_coef"
DDP_TIMEOUT = 10**7  # seconds, the most that the key takes here


def processes(conversion: Conversion, value: Any) -> Ours:
    """Convert a number of processes that tokenise."""
    known = "dataset_num_proc" in library_keys(STAGES[conversion.stage]) or conversion.stage == "reward"
    return threads(value, known)


def accumulation(conversion: Conversion, value: Any) -> Ours:
    """Convert the microbatches of an optimizer step."""
    if conversion.stage in ONLINE:
        raise Drop("it is a factor of rollout_batch_size")
    return {"gradient_accumulation_steps": value}


def _epochs(conversion: Conversion, value: Any) -> Ours:
    if conversion.stage in ONLINE:
        raise Drop("it is a factor of total_episodes")
    return {"num_train_epochs": value}


def steps(conversion: Conversion, value: Any) -> Ours:
    """Convert a number of optimizer steps."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refuse(f"must be a number of steps, found {shown(value)}")
    if conversion.stage in ONLINE:
        raise Drop("it is a factor of total_episodes")
    if value is None or value <= 0:
        raise Drop(OFF_HERE)
    return {"max_steps": int(value)}


def in_order(conversion: Conversion, packing: bool | None) -> Ours:
    """Keep the order of the rows.

    Args:
        packing: whether the run packs; None: the default of the stage.
    """
    if conversion.stage not in ("sft", "pretrain", "reward", "dpo"):
        raise Refuse("rows are shuffled in this stage, by seed")
    if packing or (packing is None and conversion.stage == "pretrain"):
        raise Refuse("sequences are packed by length, not in the order of the rows; turn packing off")
    return {"train_sampling_strategy": "sequential"}


def logging(conversion: Conversion, value: Any) -> Ours:
    """Convert the steps between logs."""
    if conversion.stage in ONLINE:
        raise Drop("the stage logs once an update")
    return {"logging_steps": value}


def _evaluation(_: Conversion, value: Any) -> Ours:
    return {"eval_strategy": "no" if value is False else value}


def _ddp_timeout(_: Conversion, value: Any) -> Ours:
    return {"ddp_timeout": min(int(value), DDP_TIMEOUT)}


def _checkpointing(_: Conversion, value: Any) -> Ours:
    raise Drop("both kinds of recomputation give the same gradients")


def _reports(_: Conversion, value: Any) -> Ours:
    return {"report_to": "none" if value is None else value}


def batches(default_micro: int, defaultaccumulation: int = 1, default_epochs: float = 3.0) -> tuple[Key, ...]:
    """Return the keys of the batch and of the length of a run, with a peer's defaults."""
    return (
        same("per_device_train_batch_size", default=default_micro),
        same("per_device_eval_batch_size"),
        converted(
            "gradient_accumulation_steps",
            "gradient_accumulation_steps",
            "`ppo`, `grpo`, `rloo`: a factor of `rollout_batch_size`",
            accumulation,
            default=defaultaccumulation,
        ),
        converted(
            "num_train_epochs",
            "num_train_epochs",
            "`ppo`, `grpo`, `rloo`: a factor of `total_episodes`",
            _epochs,
            default=default_epochs,
        ),
        converted("max_steps", "max_steps", "`ppo`, `grpo`, `rloo`: a factor of `total_episodes`", steps),
    )


STRATEGIES = (
    converted("deepspeed", "", "names the strategy of `alignment launch`, or keeps the file", deepspeed),
    converted("fsdp", "", "`alignment launch --strategy fsdp2`", fsdp),
    converted("fsdp_config", "", "`alignment launch --strategy fsdp2`", fsdp),
)
OLDER_NAMES = (
    converted("warmup_ratio", "warmup_steps", "below 1 it is a share of all steps", warmup),
    converted("evaluation_strategy", "eval_strategy", "", _evaluation),
    converted("eval_strategy", "eval_strategy", "", _evaluation),
    converted("logging_steps", "logging_steps", "", logging),
    dropped("logging_strategy", "metrics are logged every logging_steps"),
    renamed("no_cuda", "use_cpu"),
    converted("group_by_length", "train_sampling_strategy", "group_by_length", by_length),
    renamed("per_gpu_train_batch_size", "per_device_train_batch_size"),
    renamed("per_gpu_eval_batch_size", "per_device_eval_batch_size"),
    *each(
        dropped,
        "use_mps_device fp16_backend half_precision_backend use_ipex jit_mode_eval tpu_num_cores",
        "it does not change what is trained",
    ),
    same("run_name"),
    same("project"),
    dropped("fsdp_transformer_layer_cls_to_wrap", "the strategy wraps the model's own layers"),
    converted("ddp_timeout", "ddp_timeout", "seconds, at most 10,000,000", _ddp_timeout),
    converted("report_to", "report_to", "", _reports),
    *STRATEGIES,
    converted(
        "gradient_checkpointing_kwargs", "", "both kinds of recomputation give the same gradients", _checkpointing
    ),
    converted("dataset_num_proc", "dataset_num_proc", "", processes),
    dropped("trust_remote_code", REMOTE_CODE),
    dropped("overwrite_output_dir", "a run resumes what its folder holds; overwrite: true starts again"),
    dropped("logging_dir", "a tracker's folder is its own setting"),
    dropped("remove_unused_columns", "columns that no layout reads are refused or ignored by ignore_columns"),
    dropped("use_liger_kernel", FASTER),
    dropped("enable_liger_kernel", FASTER),
    dropped("save_safetensors", "weights are safetensors always"),
    *each(
        dropped,
        "hub_model_revision push_to_hub_revision",
        "a run does not wait for the Hub; upload its folder once it is finished",
    ),
    *each(dropped, "local_rank num_machines main_process_ip main_process_port machine_rank", LAUNCHER),
    dropped("num_processes", "start the recipe on as many with `alignment launch`; the batch counts them"),
    converted("accelerate_config", "", "names the strategy of `alignment launch`", accelerate),
    *each(refused, "do_predict predict_with_generate", "nothing is predicted; use `alignment evaluate`"),
)


def finish(conversion: Conversion) -> None:
    """Take out what has no effect once all keys are known."""
    recipe, title = conversion.recipe, conversion.peer.title
    about = STAGES[conversion.stage].STAGE
    held_out = [key for key in ("eval_datasets", "test_split_size", "max_eval_samples") if recipe.get(key)]
    evaluation = ("eval_strategy", "eval_steps", "eval_on_start", "load_best_model_at_end", "metric_for_best_model",
                  "greater_is_better", "early_stopping_patience")  # fmt: skip
    if not about.held_out:
        for key in held_out:
            conversion.take_out(key, "the stage does not evaluate while it trains; stage evaluate does")
    if not about.held_out or not held_out:
        reason = "there are no data to evaluate on" if about.held_out else "the stage does not evaluate while it trains"
        for key in evaluation:
            conversion.take_out(key, reason)
        if recipe.get("save_strategy") == "best":
            conversion.take_out("save_strategy", reason)
    if recipe.get("load_best_model_at_end"):
        _save_at_evaluations(conversion)
    if about.ratio and recipe.get("lora_dropout"):
        conversion.take_out("lora_dropout", f"dropout is off in {about.title}: with it {about.ratio}")
        recipe["lora_dropout"] = 0.0
    if recipe.get("peft_method") == "full":
        for key in [key for key in recipe if key.startswith("lora_") or key in ("use_rslora", "loraplus_lr_ratio")]:
            conversion.take_out(key, "all weights are trained")
    if conversion.stage == "kto" and recipe.get("loss_type", "kto") == "kto":
        _microbatch_of_two(conversion)
    recipe.setdefault("on_bad_row", "skip")
    conversion.note(
        "on_bad_row", f"rows that cannot be used, as too long ones, are left out and counted; {title} goes on too"
    )


def rollouts(
    conversion: Conversion, per_process: int, answers: int, epochs: str = "num_train_epochs", steps: int = 1
) -> None:
    """Set the answers of an update, over all processes, and of the run.

    Args:
        per_process: answers of an update on one process. answers: to each prompt. epochs: the peer's key.
        steps: of the optimizer, in an update, as max_steps counts them.
    """
    recipe = conversion.recipe
    recipe["rollout_batch_size"] = per_process * conversion.processes
    conversion.note("rollout_batch_size", f"{per_process} on each of {conversion.processes} processes")
    if recipe.get("total_episodes"):
        return
    updates, count = conversion.get("max_steps"), float(conversion.get(epochs))
    if updates and updates > 0:
        recipe["total_episodes"] = max(1, updates // steps) * recipe["rollout_batch_size"]
        conversion.note("total_episodes", f"{updates} steps")
        return
    rows = conversion.options.rows or conversion.most_rows
    if rows is None:
        conversion.refuse(epochs, f"{count:g} epochs are a number of answers here (total_episodes), which "
                          "needs the number of prompts: give --rows N")  # fmt: skip
        return
    recipe["total_episodes"] = max(int(count * rows * answers), recipe["rollout_batch_size"])
    conversion.note("total_episodes", f"{count:g} epochs of {rows} prompts, {answers} answers each")


def _save_at_evaluations(conversion: Conversion) -> None:
    """Write checkpoints at evaluations, among which the best is found."""
    recipe = conversion.recipe
    evaluation, saving = recipe.get("eval_strategy", "no"), recipe.get("save_strategy", "steps")
    if evaluation in ("no", saving) or saving == "best":
        return
    recipe["save_strategy"] = evaluation
    conversion.note("save_strategy", f"{saving} at the file: the best model is found among evaluations")
    if evaluation == "steps":
        recipe["save_steps"] = recipe.get("eval_steps", recipe.get("logging_steps", 500))
    else:
        recipe.pop("save_steps", None)


def no_loss_of_experts(conversion: Conversion) -> None:
    """Turn the load-balancing loss of experts off, where the peer adds none without a key and TRL does."""
    if EXPERTS in library_keys(STAGES[conversion.stage]) and EXPERTS not in conversion.recipe:
        conversion.recipe[EXPERTS] = 0.0
        conversion.note(EXPERTS, f"{conversion.peer.title} adds no load-balancing loss of experts without a key")


PEFT_TARGETS = ["q_proj", "v_proj"]  # PEFT's default for Llama, Mistral, Qwen, Gemma and most others


def library_targets(conversion: Conversion) -> None:
    """Name the modules that PEFT chooses by the architecture, where the file names none."""
    conversion.recipe["lora_target_modules"] = PEFT_TARGETS
    conversion.note("lora_target_modules", "PEFT's default for most architectures")


def _microbatch_of_two(conversion: Conversion) -> None:
    """KTO's KL needs two rows in a microbatch: keep the effective batch."""
    recipe = conversion.recipe
    steps = recipe.get("gradient_accumulation_steps", 1)
    if recipe.get("per_device_train_batch_size") == 1 and isinstance(steps, int) and steps % 2 == 0:
        recipe["per_device_train_batch_size"], recipe["gradient_accumulation_steps"] = 2, steps // 2
        conversion.note("per_device_train_batch_size", "1 x 2 accumulated: the KL is estimated within a microbatch")


def effective_batch(recipe: dict[str, Any], processes: int) -> int | None:
    """Return the number of rows of an optimizer step, over all processes."""
    if "rollout_batch_size" in recipe:
        return int(recipe["rollout_batch_size"] // recipe.get("num_mini_batches", 1))
    factors = (recipe.get("per_device_train_batch_size"), recipe.get("gradient_accumulation_steps", 1))
    if not all(isinstance(factor, int) for factor in factors):
        return None
    return int(factors[0] * factors[1] * processes)
