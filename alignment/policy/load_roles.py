"""From a PPO recipe to `Roles`: what each role starts from. The planner builds the same roles on the meta device."""

import copy
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from peft import PeftType, get_peft_model_state_dict
from peft.utils import load_peft_weights
from torch import Tensor
from transformers import AutoModelForCausalLM

from alignment.config.schema import PolicyGradientRecipe, ValueRecipe
from alignment.errors import ModelError
from alignment.policy.adapter_files import read_adapter_config
from alignment.policy.base import load_base, require_method, whole_modules
from alignment.policy.heads import SCORE_WEIGHT, ScalarHead, read_score_weight
from alignment.policy.methods import HEADS, adapter_config, optional
from alignment.policy.model_source import ModelSource, resolve_model
from alignment.policy.patterns import require_patterns
from alignment.policy.placing import module_names
from alignment.policy.prompts import EMBEDDINGS
from alignment.policy.reward_models import RewardModel
from alignment.policy.roles import Roles
from alignment.policy.switch import ADAPTER, SwitchedBase
from alignment.policy.targets import require_modules
from alignment.policy.trunk import require_trunk
from alignment.policy.value_model import load_value_model

CLASSIFIER_HEADS = ("classifier", "score")  # PEFT saves both names with every sequence classifier


@dataclass(frozen=True, slots=True)
class AdapterStart:
    """A named adapter of a role."""

    config: Any  # PEFT's
    weights: dict[str, Tensor] | None = None  # None: PEFT's initialisation, the base's function
    score: Tensor | None = None  # of a reward model: its head, (1, width)


class Loader(Protocol):
    """Loads the models of roles: with their weights, or on the meta device to plan."""

    def model(self, *, full: bool) -> Any:
        """Return the policy's base as a causal LM; full: all of its weights train."""
        ...

    def config(self, config: Any) -> Any:
        """Return the configuration with which a role's adapter is built."""
        ...

    def value_model(self, recipe: ValueRecipe) -> tuple[Any, ScalarHead]:
        """Return a separate value model and its head."""
        ...


def load_roles(recipe: PolicyGradientRecipe, *, rewards: Sequence[RewardModel] = ()) -> Roles:
    """Load the base once and put every role on it.

    Args:
        recipe: `model_name_or_path` is the SFT model or adapter; with an adapter, policy and reference start from it.
        rewards: the reward models; those with a role are adapters on the same base. The value starts from the role
            `reward`, without one from zero.

    Raises: ModelError if an adapter does not fit the base.
    """
    source = resolve_model(recipe.model_name_or_path, revision=recipe.model_revision)
    require_policy(source, recipe)
    saved = [source.adapter, *(model.adapter for model in rewards if model.role)]
    new = [recipe] if source.adapter is None else []
    whole = whole_modules(source.base, recipe, [adapter for adapter in saved if adapter], new)
    loader = _Weights(recipe, source.base, whole)
    held = [model.role for model in rewards if model.role]
    base = loader.model(full=recipe.method.trains_base and not needs_base(recipe, held))
    adapters = {model.role: _saved_reward(model.adapter) for model in rewards if model.role and model.adapter}
    return build_roles(recipe, loader, base, sft=_saved(source.adapter) if source.adapter else None, rewards=adapters)


def require_policy(source: ModelSource, recipe: PolicyGradientRecipe) -> None:
    """Refuse an adapter that contradicts the recipe, and a new one that needs training examples to start.

    Raises: ModelError.
    """
    require_method(source, recipe, True, recipe)
    if source.adapter is None and optional(recipe, "choose_weights") is not None:
        raise ModelError(
            f"peft_method {recipe.peft_method} chooses its weights by training examples, which {recipe.STAGE.title} "
            "does not have; start from the adapter of an SFT run, or use another peft_method."
        )


@dataclass(frozen=True, slots=True)
class _Weights:
    """Loads models with their weights."""

    recipe: PolicyGradientRecipe
    base: str
    whole: Sequence[str]  # modules that are not quantised

    def model(self, *, full: bool) -> Any:
        return load_base(AutoModelForCausalLM, self.base, self.recipe, full=full, whole=self.whole)

    def config(self, config: Any) -> Any:
        return copy.deepcopy(config)

    def value_model(self, recipe: ValueRecipe) -> tuple[Any, ScalarHead]:
        return load_value_model(recipe)


def needs_base(recipe: PolicyGradientRecipe, rewards: Collection[str]) -> bool:
    """Whether a role other than the policy computes on the base. If none does, the base is a policy trained whole.

    Args:
        rewards: the reward roles.
    """
    value_on_base = recipe.value is not None and recipe.value.value_model == "adapter"
    return bool(rewards) or value_on_base or recipe.update_rule().needs_reference


def build_roles(
    recipe: PolicyGradientRecipe,
    loader: Loader,
    base: Any,
    *,
    sft: AdapterStart | None,
    rewards: dict[str, AdapterStart],
) -> Roles:
    """Put every role of a recipe on the base; the models may be on the meta device.

    Args:
        base: of `loader`; frozen, or the policy if all its weights train and no other role computes on it
            (`needs_base`). sft: the adapter that policy and reference start from. rewards: by role.
    """
    starts = _starts(recipe, sft, rewards)
    starts = {role: replace(start, config=loader.config(start.config)) for role, start in starts.items()}
    width = base.config.get_text_config().hidden_size
    heads = {role: ScalarHead(width, start.score) for role, start in rewards.items()}
    value_model = None
    if recipe.value is not None and recipe.value.value_model == "model":
        value_model, heads["value"] = loader.value_model(recipe.value)
    elif recipe.value is not None:
        score = heads["reward"].weight if rewards and _starts_as_reward(recipe.value) else None
        heads["value"] = ScalarHead(width, score)
    switched = with_adapters(base, starts, has_reference=recipe.update_rule().needs_reference)
    if recipe.lora_layers is not None and recipe.share_trunk:
        require_trunk(switched, recipe.lora_layers, saved=[role for role, each in starts.items() if each.weights])
    _hold_as_the_base(switched, rewards)
    policy_model = None
    if recipe.method.trains_base:
        policy_model = loader.model(full=True) if needs_base(recipe, rewards) else base
    return Roles(
        switched,
        heads=heads,
        policy_model=policy_model,
        value_on_policy=recipe.value is not None and recipe.value.value_model == "head",
        value_model=value_model,
    )


def _starts(
    recipe: PolicyGradientRecipe, sft: AdapterStart | None, rewards: dict[str, AdapterStart]
) -> dict[str, AdapterStart]:
    """Return the adapters by role."""
    starts: dict[str, AdapterStart] = {}
    if recipe.method.has_adapter:
        starts["policy"] = sft or AdapterStart(adapter_config(recipe, task="CAUSAL_LM"))
    if sft is not None and recipe.update_rule().needs_reference:
        starts["reference"] = sft
    starts |= rewards
    if recipe.value is not None and recipe.value.value_model == "adapter":
        starts["value"] = rewards["reward"] if rewards and _starts_as_reward(recipe.value) else _new_value(recipe.value)
    return starts


def _starts_as_reward(recipe: ValueRecipe) -> bool:
    """Whether the value starts as the role `reward` if there is one; of a method of its own it is new."""
    return recipe.value_model == "adapter" and recipe.value_peft_method is None


def _new_value(recipe: ValueRecipe) -> AdapterStart:
    """Return a new adapter for the value, which trains no module whole."""
    changes = recipe.with_method(recipe.value_peft_method or recipe.method.new_value)
    return AdapterStart(adapter_config(recipe.model_copy(update=changes), task="CAUSAL_LM"))


def role_config(config: Any) -> Any:
    """Return a saved adapter's configuration as a role's, which has no dropout; its head is held beside the base."""
    heads = CLASSIFIER_HEADS if config.task_type == "SEQ_CLS" else HEADS["SEQ_CLS"]
    found = copy.deepcopy(config)
    found.task_type, found.inference_mode, found.base_model_name_or_path = "CAUSAL_LM", False, None
    found.modules_to_save = [name for name in found.modules_to_save or [] if name not in heads] or None
    for key, value in vars(found).items():
        if key.endswith("dropout") and isinstance(value, float):
            setattr(found, key, 0.0)
    return found


def _saved(adapter: str) -> AdapterStart:
    """Read a saved adapter without a classifier's head."""
    config = read_adapter_config(adapter)
    _require_its_own_part(config, adapter)
    weights = load_peft_weights(adapter, device="cpu")
    return AdapterStart(role_config(config), {key: w for key, w in weights.items() if not key.endswith(SCORE_WEIGHT)})


def _saved_reward(adapter: str) -> AdapterStart:
    return replace(_saved(adapter), score=read_score_weight(adapter))


def _require_its_own_part(config: Any, adapter: str) -> None:
    """Refuse adapters that change the base's own weights, which all roles share."""
    start = str(getattr(config, "init_lora_weights", None)).lower()
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


def _hold_as_the_base(switched: SwitchedBase, frozen: Iterable[str]) -> None:
    """Hold LoRA adapters that never train in the base's precision; PEFT casts all adapters to float32.

    The reference's adapter stays in float32, as the policy's is: before the first step their KL is exactly 0. Other
    types stay in float32 too: some of them compute what half precision cannot, such as OFT's matrix inverse.
    """
    dtype = switched.base.get_input_embeddings().weight.dtype
    for role in frozen:
        adapter = switched.adapters[role]
        if adapter.config.peft_type == PeftType.LORA:
            for parameter in (p for module in adapter.modules.values() for p in module.parameters()):
                parameter.data = parameter.data.to(dtype)


def with_adapters(base: Any, starts: dict[str, AdapterStart], *, has_reference: bool) -> SwitchedBase:
    """Put the roles' adapters on a base model.

    Args:
        has_reference: the reference is evaluated; if a new adapter of the policy is not the base's function, the
            reference has a copy of it.

    Raises: ModelError if an adapter's weights do not match the places that the base has for them.
    """
    modules = module_names(base)
    for name, start in starts.items():
        require_patterns(start.config, modules, f"the {name} adapter")
    for start in starts.values():
        if start.weights is None:
            require_modules(base, start.config)
    switched = SwitchedBase(base)
    for name, start in starts.items():
        switched.add(name, start.config, start.weights)
    policy = starts.get("policy")
    if has_reference and policy is not None and "reference" not in starts and _moves_at_once(policy.config):
        switched.add("reference", copy.deepcopy(policy.config), _present_weights(switched, "policy"))
    return switched


def _moves_at_once(config: Any) -> bool:
    """Whether a new adapter is not the base's function, so that the reference must be a copy of it."""
    return config.is_prompt_learning or config.peft_type in (PeftType.UNILORA, PeftType.VBLORA)


@torch.no_grad()  # as rollouts are scored: torch computes an LSTM otherwise where it needs no gradient
def _present_weights(switched: SwitchedBase, role: str) -> dict[str, Tensor]:
    if switched.adapters[role].config.is_prompt_learning:
        return {EMBEDDINGS: switched.prompt(role)().detach().clone()}
    with switched.plain(role) as model:
        saved = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    return {name: tensor.detach().clone() for name, tensor in saved.items()}
