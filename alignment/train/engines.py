"""From a recipe's `rollout_engine` to the engine."""

import importlib.util
from typing import Any

from accelerate import Accelerator

from alignment.config.schema import PPORecipe
from alignment.errors import ModelError
from alignment.policy.merged import policy_weights
from alignment.policy.roles import Roles
from alignment.rollout.continuous_batching import ContinuousBatchingEngine
from alignment.rollout.engine import Engine
from alignment.rollout.transformers_engine import TransformersEngine
from alignment.rollout.vllm_engine import VLLMEngine, vllm_generation


def require_engine(recipe: PPORecipe) -> None:
    """Refuse, before anything loads, an engine that is not installed."""
    if recipe.rollout_engine == "vllm" and importlib.util.find_spec("vllm") is None:
        raise ModelError(
            "rollout_engine is vllm, but the package vllm is not installed; run `pip install 'alignment-stack[vllm]'` "
            "on a machine with a GPU, or use rollout_engine: transformers"
        )


def build_engine(recipe: PPORecipe, roles: Roles, tokenizer: Any, accelerator: Accelerator) -> Engine:
    """Return what samples with the policy."""
    pad, together = tokenizer.pad_token_id, recipe.rollout_eval_batch_size
    if recipe.rollout_engine == "continuous_batching":
        return ContinuousBatchingEngine(roles.policy_lm, pad, together)
    if recipe.rollout_engine == "vllm":
        require_engine(recipe)
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
                max_model_length=recipe.vllm_max_model_length or roles.context,
                enable_sleep_mode=recipe.vllm_enable_sleep_mode,
                trust_remote_code=recipe.trust_remote_code,
                max_num_seqs=together,
                logprobs=0,
            )
        )
    return TransformersEngine(roles.policy_lm, pad, together)
