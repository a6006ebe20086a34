"""From a PPO recipe to `Roles`: which weights each role starts from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights
from torch import Tensor
from transformers import AutoModelForCausalLM

from alignment.config.schema import PPORecipe
from alignment.errors import ModelError, first_line
from alignment.policy.adapter_files import read_adapter_config
from alignment.policy.adapters import adapter_config, copies_in_float32, module_names, require_policy_adapter
from alignment.policy.base import load_base, resolve_model
from alignment.policy.heads import SCORE_WEIGHT, ScalarHead, read_score_weight
from alignment.policy.patterns import require_patterns
from alignment.policy.reward_models import RewardModel
from alignment.policy.roles import Roles, belongs_to
from alignment.policy.targets import require_modules
from alignment.policy.value_model import load_value_model

COPIES = r".*\.(modules_to_save|original_module)(\..*)?"  # inside what PEFT wraps for another adapter's modules_to_save


@dataclass(frozen=True, slots=True)
class AdapterStart:
    """A named adapter: its shape, and the weights it starts from; none: PEFT's initialisation, the base's function."""

    config: LoraConfig
    weights: dict[str, Tensor] | None = None


def load_roles(recipe: PPORecipe, *, rewards: Sequence[RewardModel] = ()) -> Roles:
    """Load the base once and put every role on it.

    Args:
        recipe: `model_name_or_path` is the SFT model or adapter; with an adapter, policy and reference start from it.
        rewards: the reward models; those with a role are adapters on the same base. The value starts from the role
            `reward`, without one from zero.
    Raises: ModelError where an adapter does not fit the base.
    """
    source = resolve_model(recipe.model_name_or_path, revision=recipe.model_revision)
    base = load_base(AutoModelForCausalLM, source.base, recipe)
    full = recipe.peft_method == "full"
    if full and source.adapter is not None:
        raise ModelError(
            f"{source.adapter} is an adapter, but peft_method is full; merge it first (alignment merge "
            f"{source.adapter} OUT) and name OUT as model_name_or_path, or train an adapter."
        )
    if source.adapter is not None:
        require_policy_adapter(read_adapter_config(source.adapter), source.adapter)
    reward_adapters = {model.role: model.adapter for model in rewards if model.role and model.adapter}
    starts = _starts(recipe, sft=source.adapter, rewards=reward_adapters)
    adapters: dict[str, str | None] = {"policy": None, "reference": None}
    adapters |= {name: name for name in starts}
    width = base.config.get_text_config().hidden_size
    heads = {role: ScalarHead(width, read_score_weight(adapter)) for role, adapter in reward_adapters.items()}
    value_model = None
    if recipe.uses_value and recipe.value_model == "model":
        value_model, heads["value"] = load_value_model(recipe)
    elif recipe.uses_value:
        score = heads["reward"].weight if reward_adapters and recipe.value_model == "adapter" else None
        heads["value"] = ScalarHead(width, score)
    model = copies_in_float32(with_adapters(base, starts)) if starts else base
    _hold_as_the_base(model, reward_adapters)
    return Roles(
        model,
        adapters=adapters,
        heads=heads,
        policy_model=load_base(AutoModelForCausalLM, source.base, recipe, full=True) if full else None,
        value_on_policy=recipe.uses_value and recipe.value_model == "head",
        value_model=value_model,
    )


def _starts(recipe: PPORecipe, *, sft: str | None, rewards: dict[str, str]) -> dict[str, AdapterStart]:
    """Which adapters there are and what each starts from, policy first: PEFT names the first one active."""
    starts: dict[str, AdapterStart] = {}
    if recipe.peft_method != "full":
        starts["policy"] = _saved(sft) if sft is not None else AdapterStart(adapter_config(recipe, task="CAUSAL_LM"))
    if sft is not None:
        starts["reference"] = _saved(sft)
    starts |= {role: _saved(adapter) for role, adapter in rewards.items()}
    if recipe.uses_value and recipe.value_model == "adapter":
        keys = recipe.model_copy(update={"peft_method": "lora", "lora_modules_to_save": None})
        fresh = AdapterStart(adapter_config(keys, task="CAUSAL_LM"))
        if any(start.config.modules_to_save for start in starts.values()):
            fresh.config.exclude_modules = COPIES
        starts["value"] = _saved(rewards["reward"]) if rewards else fresh
    return starts


def _saved(adapter: str) -> AdapterStart:
    """Read a saved adapter; a classifier's head is left to `heads`, and dropout to `Roles`, which has none."""
    config = read_adapter_config(adapter)
    _require_its_own_part(config, adapter)
    config.task_type = "CAUSAL_LM"
    config.lora_dropout = 0.0
    config.inference_mode = False
    config.base_model_name_or_path = None
    config.modules_to_save = [name for name in config.modules_to_save or [] if name != "score"] or None
    weights = load_peft_weights(adapter, device="cpu")
    return AdapterStart(config, {key: w for key, w in weights.items() if not key.endswith(SCORE_WEIGHT)})


def _require_its_own_part(config: LoraConfig, adapter: str) -> None:
    """Refuse adapters that change the base they lie on: several roles share it."""
    start = str(config.init_lora_weights).lower()
    if start.startswith(("pissa", "olora", "corda", "loftq")):
        raise ModelError(
            f"{adapter} was begun with init_lora_weights {config.init_lora_weights}, which changes the base's own "
            "weights, and the roles of PPO share them. Save it as a plain LoRA adapter with peft's "
            "save_pretrained(path_initial_model_for_weight_conversion=...), or merge it: alignment merge."
        )
    for key in ("bias", "trainable_token_indices"):
        if getattr(config, key, None) not in (None, "none"):
            raise ModelError(
                f"{adapter} has {key} {getattr(config, key)}, which peft keeps in the base once, for one adapter; the "
                f"roles of PPO are several. Merge it (alignment merge {adapter} OUT) and start from OUT."
            )


def _hold_as_the_base(model: Any, frozen: Iterable[str]) -> None:
    """Keep adapters that never train in the base's precision, where PEFT widens all to float32.

    Not the reference's: it is compared with a policy in float32, and before the first step their KL is exactly 0.
    """
    dtype = model.get_input_embeddings().weight.dtype
    for name, parameter in model.named_parameters():
        if any(belongs_to(name, adapter) for adapter in frozen):
            parameter.data = parameter.data.to(dtype)


def with_adapters(base: Any, starts: dict[str, AdapterStart]) -> PeftModel:
    """Put named adapters on a base model.

    Raises: ModelError where an adapter's weights have no place in the base, or the base places without weights.
    """
    modules = module_names(base)
    for name, start in starts.items():
        require_patterns(start.config, modules, f"the {name} adapter")
    for start in starts.values():
        if start.weights is None:
            require_modules(base, start.config)
    names = iter(starts.items())
    first, start = next(names)
    model = PeftModel(base, start.config, adapter_name=first)
    for name, more in names:
        model.add_adapter(name, more.config)
    for name, start in starts.items():
        if start.weights is None:
            continue
        try:
            result = set_peft_model_state_dict(model, start.weights, adapter_name=name)
        except RuntimeError as error:
            raise ModelError(
                f"the {name} adapter does not fit the base: {first_line(str(error).strip().splitlines()[-1])}"
            ) from error
        missing = [key for key in result.missing_keys if f".{name}." in key]
        if result.unexpected_keys or missing:
            wrong = (list(result.unexpected_keys) + missing)[0]
            raise ModelError(f"the {name} adapter does not fit the base: {wrong} has no counterpart")
    return model
