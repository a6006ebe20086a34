"""Builds the engine that a recipe's `rollout_engine` names."""

import logging
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from alignment.config.engines import WHOLE_WEIGHTS
from alignment.config.launched import is_compiled
from alignment.config.schema import PolicyGradientRecipe
from alignment.data.rows import Prompt
from alignment.data.template import Template
from alignment.errors import ModelError, RecipeError, named_inputs
from alignment.policy.adapter_files import read_adapter_config
from alignment.policy.base import model_config
from alignment.policy.mergeable import changed_apart, why_not_merged
from alignment.policy.merged import bfloat16_copy, policy_weights
from alignment.policy.methods import adapter_config, method_of
from alignment.policy.model_source import resolve_model
from alignment.policy.plain_lora import why_no_vllm_lora
from alignment.policy.role_files import save_policy
from alignment.policy.roles import Roles
from alignment.rollout.continuous_batching import ContinuousBatchingEngine
from alignment.rollout.engine import Engine
from alignment.rollout.merged_engine import MergedEngine
from alignment.rollout.static_batch import StaticDecoder, require_static, static_decoder, try_step
from alignment.rollout.transformers_engine import TransformersEngine
from alignment.rollout.vllm_adapter import VersionedAdapter
from alignment.rollout.vllm_engine import VLLMEngine, vllm_generation, vllm_is_installed
from alignment.train.sharding import is_sharded

logger = logging.getLogger(__name__)


def require_samplable(recipe: PolicyGradientRecipe) -> None:
    """Refuse an adapter, new or saved, that the engine cannot sample with.

    Raises: ModelError.
    """
    if recipe.rollout_engine == "transformers" or not recipe.method.has_adapter:
        return
    source = resolve_model(recipe.model_name_or_path, revision=recipe.model_revision)
    config = read_adapter_config(source.adapter) if source.adapter else adapter_config(recipe, task="CAUSAL_LM")
    why = None
    if config.is_prompt_learning:
        why = "only this project's engine puts before the decoder's inputs"
    elif recipe.rollout_engine in WHOLE_WEIGHTS:
        why = why_not_merged(config, source.base, recipe)
        if why is None and recipe.bits and not method_of(config).is_lora:
            why = f"PEFT would merge into {recipe.bits} bits, rounded"
        if why is None and (name := changed_apart(config, source.base, recipe)) is not None:
            why = f"changes {name}, whose weights a plain model ties to another module's (tie_word_embeddings)"
    if why is not None:
        raise ModelError(
            f"rollout_engine is {recipe.rollout_engine}, and the policy is an adapter of {method_of(config).title}, "
            f"which {why}; use rollout_engine: transformers"
        )


@named_inputs()
def require_engine(recipe: PolicyGradientRecipe) -> None:
    """Refuse an engine that is not installed or cannot hold the policy's weights, before anything is loaded."""
    if is_compiled():
        raise RecipeError(
            [
                "ACCELERATE_DYNAMO_BACKEND is set: `accelerate launch` would compile the training pass alone, which "
                "then rounds differently from the passes before the update; leave out --dynamo_backend and "
                "dynamo_config"
            ]
        )
    require_samplable(recipe)
    require_fixed_shapes(recipe)
    if recipe.rollout_engine != "vllm":
        return
    if not vllm_is_installed():
        raise ModelError(
            "rollout_engine is vllm, but the package vllm is not installed; run `pip install 'alignment-stack[vllm]'` "
            "on a machine with a GPU, or use rollout_engine: transformers"
        )
    if recipe.vllm_mode == "colocate":
        _require_dense(recipe)


def require_fixed_shapes(recipe: PolicyGradientRecipe) -> None:
    """Refuse a model that cannot decode with a static cache, by its configuration and a step without weights.

    Raises: ModelError.
    """
    if recipe.cache_implementation != "static":
        return
    base = resolve_model(recipe.model_name_or_path, revision=recipe.model_revision).base
    config = model_config(base, recipe, recipe.model_revision if not Path(base).is_dir() else "main")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=recipe.trust_remote_code)
        require_static(model)
        try_step(model.eval())


def _require_dense(recipe: PolicyGradientRecipe) -> None:
    """Refuse a base that is quantised on disk: vLLM would keep it quantised and could not take whole weights."""
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
    recipe: PolicyGradientRecipe, roles: Roles, template: Template, prompts: list[Prompt], accelerator: Accelerator
) -> Engine:
    """Return the engine that samples answers to `prompts` with the policy."""
    tokenizer: Any = template.tokenizer
    pad, together = tokenizer.pad_token_id, recipe.rollout_eval_batch_size
    if recipe.rollout_engine == "continuous_batching":
        return ContinuousBatchingEngine(roles.policy_lm, pad, together)
    if recipe.rollout_engine == "vllm":
        require_engine(recipe)
        alone = versioned_adapter(recipe, roles)
        longest = max(len(template.prompt_ids(prompt)) for prompt in prompts) + recipe.max_new_tokens
        return VLLMEngine(
            vllm_generation(
                lambda: policy_weights(roles),
                alone,
                quantization="bitsandbytes" if alone is not None and recipe.load_in_4bit else None,
                model=roles.policy_lm,
                accelerator=accelerator,
                processing_class=tokenizer,
                mode=recipe.vllm_mode,
                server_base_url=recipe.vllm_server_base_url,
                tensor_parallel_size=recipe.vllm_tensor_parallel_size,
                gpu_memory_utilization=recipe.vllm_gpu_memory_utilization,
                max_model_length=recipe.vllm_max_model_length or longest,  # vLLM needs room for one such sequence
                enable_sleep_mode=recipe.vllm_enable_sleep_mode,
                trust_remote_code=recipe.trust_remote_code,
                max_num_seqs=together,
                logprobs=0,
            )
        )
    if recipe.rollout_engine == "merged":
        return _merged_engine(recipe, roles, pad, accelerator)
    return TransformersEngine(roles.policy_lm, pad, together, decoder=_decoder(recipe, roles.policy_lm))


def _decoder(recipe: PolicyGradientRecipe, model: Any) -> StaticDecoder | None:
    return static_decoder(model) if recipe.cache_implementation == "static" else None


def _merged_engine(recipe: PolicyGradientRecipe, roles: Roles, pad: int, accelerator: Accelerator) -> MergedEngine:
    if is_sharded(accelerator):
        raise ModelError(
            "rollout_engine is merged, and the weights are in shards: each process would hold a whole copy of the "
            "policy beside its shards; use ddp or ZeRO-2, or rollout_engine: transformers"
        )
    model = bfloat16_copy(roles)
    sampler = TransformersEngine(
        model,
        pad,
        recipe.rollout_eval_batch_size,
        decoder=_decoder(recipe, model),
        keeps_memory=True,
        with_logp=True,
    )
    return MergedEngine(sampler, lambda: policy_weights(roles))


def versioned_adapter(recipe: PolicyGradientRecipe, roles: Roles) -> VersionedAdapter | None:
    """Return the object that passes the adapter alone to vLLM; None if merged weights are passed.

    Raises: ModelError if `vllm_sync: adapter` requires what vLLM cannot do.
    """
    obstacle = adapter_obstacle(recipe, roles)
    if recipe.vllm_sync == "adapter" and obstacle is not None:
        raise ModelError(f"vllm_sync is adapter, but {obstacle}; use vllm_sync: auto or merged")
    if recipe.vllm_sync == "merged":
        return None
    if obstacle is not None:
        logger.warning("vLLM is handed merged weights before each rollout, because %s", obstacle)
        return None
    return VersionedAdapter(lambda path: save_policy(roles, path), roles.adapters["policy"].config.r)


def adapter_obstacle(recipe: PolicyGradientRecipe, roles: Roles) -> str | None:
    """Why vLLM cannot take the policy's adapter alone; None if it can.

    In vLLM, bitsandbytes_loader.py quantises a base to NF4 with nested constants, as training does.
    """
    if not recipe.method.has_adapter:
        return f"peft_method is {recipe.peft_method}"
    adapter = roles.adapters["policy"]
    config = adapter.config
    method = method_of(config)
    if not method.vllm_adapter:
        return f"vLLM has no {method.title}"
    obstacles = {
        "vllm_mode is server, and TRL's server takes no adapters": recipe.vllm_mode == "server",
        "vllm_enable_sleep_mode discards the base's weights": recipe.vllm_enable_sleep_mode,
        "vLLM takes adapters of linear layers alone": not all(
            isinstance(layer.get_base_layer(), nn.Linear) for layer in adapter.lora_layers
        ),
        "vLLM quantises by NF4 with nested constants": recipe.load_in_4bit
        and not (recipe.bnb_4bit_quant_type == "nf4" and recipe.use_bnb_nested_quant),
        "vLLM quantises no base to 8 bits": recipe.load_in_8bit,
    }
    return next((reason for reason, holds in obstacles.items() if holds), None) or why_no_vllm_lora(config)
