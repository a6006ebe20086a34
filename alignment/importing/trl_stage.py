"""Which of TRL's scripts reads a file."""

import re
from typing import Any

from alignment.config.documents import read_bytes
from alignment.errors import RecipeError

# Keys that only one stage's script has, in the order in which they decide.
OF_STAGE = {
    "ppo": ("num_ppo_epochs", "reward_model_path", "sft_model_path", "cliprange", "kl_coef", "vf_coef",
            "whiten_rewards",
            "missing_eos_penalty", "response_length", "total_episodes"),
    "rloo": ("rloo_k", "normalize_advantages"),
    "grpo": ("num_generations", "reward_funcs", "num_iterations", "scale_rewards", "epsilon", "epsilon_high",
             "steps_per_generation", "generation_batch_size", "reward_weights", "mask_truncated_completions",
             "importance_sampling_level", "use_vllm", "vllm_mode", "log_completions"),
    "kto": ("desirable_weight", "undesirable_weight"),
    "reward": ("center_rewards_coefficient", "max_pairs"),
    "dpo": ("label_smoothing", "use_weighting", "rpo_alpha", "simpo_gamma", "cpo_alpha", "orpo_alpha",
            "f_divergence_type", "loss_weights", "ld_alpha"),
    "sft": ("packing", "max_seq_length", "dataset_text_field", "completion_only_loss", "assistant_only_loss"),
}  # fmt: skip
# Keys of several stages' scripts. Names in comments, path and file decide between them; without one, the first.
SHARED = {
    "max_completion_length": ("grpo", "rloo", "dpo", "kto"),
    "temperature": ("grpo", "rloo"),
    "loss_type": ("dpo", "grpo"),
    "beta": ("dpo", "kto", "grpo", "rloo"),
    "precompute_ref_log_probs": ("dpo", "kto"),
}
OF_LOSS = {
    **dict.fromkeys(("kto", "apo_zero_unpaired"), "kto"),
    **dict.fromkeys(("nll", "dft", "chunked_nll"), "sft"),
    **dict.fromkeys(("grpo", "dapo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo"), "grpo"),
}
WORDS = {"sft": "sft", "dpo": "dpo", "kto": "kto", "grpo": "grpo", "rloo": "rloo", "ppo": "ppo", "reward": "reward",
         "orpo": "dpo", "simpo": "dpo", "cpo": "dpo", "rm": "reward", "apo": "dpo"}  # fmt: skip
COMMENT = re.compile(  # with a command such as `trl sft --config`, or the name of the file, as `# sft_config.yaml`
    rf"^[ \t]*#(?:.*\btrl (?P<command>{'|'.join(WORDS)}) --config\b|[ \t]*(?P<file>[\w./-]+)\.ya?ml[ \t]*\r?$)",
    re.MULTILINE,
)
NAMES = ("output_dir", "hub_model_id", "run_name")  # keys whose values often name the script


def stage_of(path: str, given: dict[str, Any]) -> str:
    """Return the stage of a file: by its keys, then by the words of its comments, of its path, and of names in it.

    Raises: RecipeError if none decides.
    """
    loss = given.get("loss_type")
    if isinstance(loss, str) and loss in OF_LOSS:
        return OF_LOSS[loss]
    named = [WORDS[word] for name in names_of(path, given) for word in reversed(words_of(name)) if word in WORDS]
    for stage, keys in OF_STAGE.items():
        if any(key in given for key in keys):
            return next((name for name in named if name in ("grpo", "rloo")), stage) if stage == "grpo" else stage
    possible = [stages for key, stages in SHARED.items() if key in given]
    stages = [stage for stage in (possible[0] if possible else ()) if all(stage in others for others in possible)]
    found = next((stage for stage in named if stage in stages or not stages), None) or next(iter(stages), None)
    if found is None:
        raise RecipeError(["its keys do not decide which script reads it; name the stage with --stage"])
    return found


def names_of(path: str, given: dict[str, Any]) -> list[str]:
    """Return the names that often hold that of the script: in the file's comments, its path, and its values."""
    text = read_bytes(path).decode("utf-8", errors="replace")
    comments = [found["command"] or found["file"] for found in COMMENT.finditer(text)]
    return [*comments, path, *(str(given.get(key) or "") for key in NAMES)]


def words_of(name: str) -> list[str]:
    """Return the words of a path or a name."""
    return re.findall(r"[a-z0-9]+", name.lower())
