"""From a recipe's `rollout_engine` to the engine."""

import importlib.util
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedConfig

from alignment.config.schema import PPORecipe
from alignment.data.rows import Prompt
from alignment.data.template import Template
from alignment.errors import ModelError
from alignment.policy.base import resolve_model
from alignment.policy.merged import policy_weights
from alignment.policy.roles import Roles
from alignment.rollout.continuous_batching import ContinuousBatchingEngine
from alignment.rollout.engine import Engine
from alignment.rollout.transformers_engine import TransformersEngine
from alignment.rollout.vllm_engine import VLLMEngine, vllm_generation


def require_engine(recipe: PPORecipe) -> None:
    """Refuse, before anything loads, an engine that is not installed or cannot hold the policy's weights."""
    if recipe.rollout_engine != "vllm":
        return
    if importlib.util.find_spec("vllm") is None:
        raise ModelError(
            "rollout_engine is vllm, but the package vllm is not installed; run `pip install 'alignment-stack[vllm]'` "
            "on a machine with a GPU, or use rollout_engine: transformers"
        )
    if recipe.vllm_mode == "colocate":
        _require_dense(recipe)


def _require_dense(recipe: PPORecipe) -> None:
    """Refuse a base that is quantised on disk: vLLM would hold it so, and has no place for whole weights then."""
    base = resolve_model(recipe.model_name_or_path, revision=recipe.model_revision).base
    configuration, _ = PreTrainedConfig.get_config_dict(base, revision=recipe.model_revision)
    quantised = configuration.get("quantization_config")
    if quantised is not None:
        method = quantised.get("quant_method", "some method") if isinstance(quantised, dict) else "some method"
        raise ModelError(
            f"{base} is quantised already ({method}), and rollout_engine vllm is handed whole weights, which do not "
            "fit a quantised model. Name the model it was made from and set load_in_4bit: true, or use "
            "rollout_engine: transformers"
        )


def build_engine(
    recipe: PPORecipe, roles: Roles, template: Template, prompts: list[Prompt], accelerator: Accelerator
) -> Engine:
    """Return what samples answers to `prompts` with the policy."""
    tokenizer: Any = template.tokenizer
    pad, together = tokenizer.pad_token_id, recipe.rollout_eval_batch_size
    if recipe.rollout_engine == "continuous_batching":
        return ContinuousBatchingEngine(roles.policy_lm, pad, together)
    if recipe.rollout_engine == "vllm":
        require_engine(recipe)
        longest = max(len(template.prompt_ids(prompt)) for prompt in prompts) + recipe.max_new_tokens
        return VLLMEngine(
            vllm_generation(
                lambda: policy_weights(roles),
                model=roles.policy_lm,
                accelerator=accelerator,
                processing_class=tokenizer,
                mode=recipe.vllm_mode,
                server_base_url=recipe.vllm_server_base_url,
                tensor_parallel_size=recipe.vllm_tensor_parallel_size,
                gpu_memory_utilization=recipe.vllm_gpu_memory_utilization,
                max_model_length=recipe.vllm_max_model_length or longest,  # vLLM wants room for one such at once
                enable_sleep_mode=recipe.vllm_enable_sleep_mode,
                trust_remote_code=recipe.trust_remote_code,
                max_num_seqs=together,
                logprobs=0,
            )
        )
    return TransformersEngine(roles.policy_lm, pad, together)
