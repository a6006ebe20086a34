"""Builds models on the meta device from their configurations: all modules and shapes, without data."""

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from torch import Tensor, nn
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from alignment.config.schema import AdapterKeys, ModelKeys, PolicyGradientRecipe, Recipe, TrainingRecipe, ValueRecipe
from alignment.config.tasks import CAUSAL, CLASSIFIER
from alignment.errors import ModelError, first_line
from alignment.hub import local, reach, why_not_on_hub
from alignment.ops.logits import LogitRule
from alignment.planner.sparse import give_places, without_places
from alignment.policy.adapter_files import named_base, read_adapter_config
from alignment.policy.adapters import expected_warnings
from alignment.policy.four_bits import BLOCK
from alignment.policy.heads import ScalarHead
from alignment.policy.load_roles import AdapterStart, build_roles, needs_base, role_config
from alignment.policy.lora import fuse_lora
from alignment.policy.methods import adapter_config, completed, method_of
from alignment.policy.model_files import ADAPTER_CONFIG, check_model_files
from alignment.policy.patterns import require_patterns
from alignment.policy.placing import module_names, placed_config
from alignment.policy.prompt_models import new_prompt
from alignment.policy.quantised import as_stored
from alignment.policy.roles import Roles
from alignment.policy.targets import require_no_other_layer
from alignment.policy.tasks import auto_class, require_task, task_for

NESTED_BLOCK = 256  # constants that share one of their own
SPARSE, BUILT_FROM_WEIGHTS = "SHIRA", ("ADAMSS", "UNILORA")  # types of PEFT
UNMASKED = "sdpa_unmasked"
NF4_TABLE, NESTED_TABLE = 4 * 16, 4 * 256 + 4  # bytes a matrix: tables of values, and the constants' mean


@dataclass(frozen=True, slots=True)
class Blueprint:
    """The configurations behind a model's path: the base's, and the adapter's if there is one."""

    config: Any
    adapter: PeftConfig | None = None
    path: str = "the model"

    @property
    def layers(self) -> int:
        """Number of layers."""
        return int(self.config.get_text_config().num_hidden_layers)

    @property
    def is_even(self) -> bool:
        """Whether the configuration describes all layers alike."""
        lists = [value for value in vars(self.config.get_text_config()).values() if isinstance(value, list | tuple)]
        return all(len(set(map(str, value))) == 1 for value in lists if len(value) == self.layers)

    def context(self, recipe: Any) -> int | None:
        """Return the most tokens of a sequence that a recipe's model reads beside its soft prompt; None: no limit."""
        most = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        taken = getattr(self.adapter, "num_virtual_tokens", None) or 0
        if self.adapter is None and isinstance(recipe, AdapterKeys):
            taken = recipe.fields().get("num_virtual_tokens", 0)
        return None if most is None else int(most) - taken

    def lies_on(self, other: "Blueprint") -> bool:
        """Whether this is an adapter on the other's base, judged by the configurations."""
        sizes = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size")
        mine, theirs = (plan.config.get_text_config() for plan in (self, other))
        return self.adapter is not None and all(getattr(mine, k, None) == getattr(theirs, k, None) for k in sizes)

    def of_depth(self, layers: int | None) -> "Blueprint":
        """Return a copy with another number of layers; None: unchanged."""
        if layers is None:
            return self
        config = copy.deepcopy(self.config)
        text = config.get_text_config()
        for key, value in vars(text).items():
            if isinstance(value, list | tuple) and len(value) == text.num_hidden_layers:
                setattr(text, key, value[:layers])
        text.num_hidden_layers = layers
        return replace(self, config=config)


def blueprint(path: str, planned: Mapping[str, Recipe], *, revision: str = "main") -> Blueprint:
    """Find the configurations behind a path; reads only `config.json` and `adapter_config.json`.

    Args:
        path: a model, an adapter, a run directory, a Hub id, or the `output_dir` of a recipe in `planned`.
        planned: recipes by output_dir; their runs may not exist yet.

    Raises: ModelError if there is no configuration.
    """
    recipe = planned.get(_place(path))
    if recipe is not None and isinstance(recipe, TrainingRecipe):
        below = blueprint(recipe.model_name_or_path, planned, revision=recipe.model_revision)
        if not recipe.method.has_adapter:
            return replace(below, adapter=None)
        return replace(below, adapter=below.adapter or adapter_config(recipe, task=task_for(recipe, below.config)))
    folder = Path(path).expanduser()
    if (folder / ADAPTER_CONFIG).is_file():
        config = read_adapter_config(folder)
        base = named_base(folder / ADAPTER_CONFIG)
        if (Path(base) / ADAPTER_CONFIG).is_file():
            raise ModelError(f"{path} is an adapter on {base}, which is itself an adapter; merge {base} first.")
        return replace(blueprint(base, planned), adapter=config)
    if folder.exists() and not (folder / "config.json").is_file():
        raise ModelError(f"{path} holds neither config.json nor {ADAPTER_CONFIG}, so there is no model to plan for.")
    if local(path) is None and (reason := why_not_on_hub(path)) is not None:
        raise ModelError(
            f"model {path} does not exist: {reason}. Plan the pipeline whose earlier stage makes it, or name a model "
            "folder with --model_name_or_path."
        )
    if local(path) is None:
        reach()
    try:
        if folder.is_dir():
            check_model_files(folder)
        return Blueprint(
            AutoConfig.from_pretrained(
                path, revision=revision if not folder.exists() else "main", trust_remote_code=False
            ),
            path=path,
        )
    except Exception as error:
        first = first_line(error)
        raise ModelError(f"the configuration of {path} cannot be loaded: {first}") from error


def _place(path: str) -> str:
    return str(Path(path))


def held_dtype(config: Any, keys: ModelKeys, *, full: bool, gpu: bool) -> torch.dtype:
    """Return the dtype that `alignment.policy.dtypes.model_dtype` chooses on such a device."""
    if keys.dtype != "auto":
        return getattr(torch, keys.dtype)
    if full or not gpu:
        return torch.float32
    return getattr(config, "dtype", None) or torch.float32


def bare(cls: Any, plan: Blueprint, keys: ModelKeys, *, full: bool, gpu: bool, padded: bool = True) -> Any:
    """Build a model on the meta device in the dtype of its weights, or of their arithmetic for quantised matrices.

    Args:
        full: all its weights train.
        padded: batches have an attention mask, which changes the attention implementation.
    """
    config = copy.deepcopy(plan.config)
    if cls is AutoModelForSequenceClassification:
        config.num_labels = 1
        if config.get_text_config().pad_token_id is None:
            config.get_text_config().pad_token_id = 0  # any id
    dtype = held_dtype(config, keys, full=full, gpu=gpu)
    options = {"attn_implementation": _attention(keys, padded)}
    with torch.device("meta"):
        try:
            model = cls.from_config(config, dtype=dtype, **options)
        except ValueError:  # an architecture without scaled-dot-product attention
            config = copy.deepcopy(config)
            config._attn_implementation = None  # which the attempt has set
            model = cls.from_config(config, dtype=dtype)
    model.requires_grad_(full)
    keys = as_stored(keys, config)
    if keys.bits and not full:
        arithmetic = torch.bfloat16 if gpu else torch.float32
        for module in _quantised(model):
            module.weight.data = module.weight.data.to(arithmetic)
            module.weight.stored = _stored(module.weight, keys)  # type: ignore[attr-defined]
    return model


def _stored(weight: Tensor, keys: ModelKeys) -> int:
    """Return the bytes of a quantised matrix."""
    if keys.load_in_8bit:
        return weight.numel() + 4 * weight.shape[0]  # a constant for each row
    return nf4_bytes(weight.numel(), nested=keys.use_bnb_nested_quant)


def _hold_whole(model: Any, configs: Iterable[Any], keys: Any, *, gpu: bool) -> None:
    """Hold in floats the modules that adapters train as copies, as `alignment.policy.base.whole_modules` does."""
    names = {
        name
        for config in configs
        if method_of(config).copies_modules
        for name in completed(config, model).target_modules or ()  # of LN tuning: PEFT's own
    }
    dtype = held_dtype(model.config, keys, full=False, gpu=gpu)
    for name in names if keys.bits else ():
        weight = model.get_submodule(name).weight
        weight.data = weight.data.to(dtype)
        vars(weight).pop("stored", None)


def _attention(keys: ModelKeys, padded: bool) -> str:
    """Return transformers' name of the attention; flash attention makes no mask and saves the same tensors as SDPA."""
    if keys.attn_implementation == "eager":
        return "eager"
    if padded and keys.attn_implementation in (None, "sdpa"):
        return "sdpa"
    AttentionInterface.register(UNMASKED, _unmasked_attention)
    return UNMASKED


def _unmasked_attention(module: nn.Module, query: Any, key: Any, value: Any, _: Any, **options: Any) -> Any:
    """Attend with the causal mask only; transformers makes no mask, as this attention registers no mask function."""
    return sdpa_attention_forward(module, query, key, value, None, **options)


def _quantised(model: Any) -> list[nn.Linear]:
    """Return the matrices that transformers quantises: all but the output layer, a score head and subclasses."""
    head = model.get_output_embeddings()
    return [
        module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and module is not head and name.rpartition(".")[2] not in ("score", "lm_head")
    ]


def parameter_bytes(parameter: Tensor) -> int:
    """Bytes of one parameter."""
    stored = getattr(parameter, "stored", None)
    return parameter.nbytes if stored is None else int(stored)


def nf4_bytes(numbers: int, *, nested: bool = True) -> int:
    """Bytes of a matrix in NF4.

    Half a byte a weight, and a constant for every 64 of them: of four bytes, or nested, of one byte and four more for
    every 256 of these (QLoRA, https://arxiv.org/abs/2305.14314, section 3), and the lookup tables.
    """
    constants = -(-numbers // BLOCK)
    if not nested:
        return numbers // 2 + 4 * constants + NF4_TABLE
    return numbers // 2 + constants + 4 * -(-constants // NESTED_BLOCK) + NF4_TABLE + NESTED_TABLE


def policy(plan: Blueprint, keys: Any, *, gpu: bool, task: str = CAUSAL) -> Any:
    """Build the model that SFT and DPO (`CAUSAL_LM`) or reward training (`SEQ_CLS`) train."""
    cls = auto_class(task)
    require_task(plan.config, plan.path, task)
    model = bare(cls, plan, keys, full=keys.method.trains_base, gpu=gpu)
    if not keys.method.has_adapter:
        return model
    if plan.adapter is None:
        config, chosen = placed_config(model, keys, task=task)
    else:
        config, chosen = completed(copy.deepcopy(plan.adapter), model), set()
        require_patterns(config, module_names(model), "lora_target_modules")
    _hold_whole(model, [config], keys, gpu=gpu)
    config.inference_mode = False
    if task == CLASSIFIER and config.task_type != task:
        config.modules_to_save = [*(config.modules_to_save or []), "score"]
    config.task_type = task
    with torch.device("meta"), _target_errors(), expected_warnings():
        config = _without_weights(config)
        wrapped = new_prompt(model, config) if config.is_prompt_learning else get_peft_model(model, config)
        give_places(wrapped)
    require_no_other_layer(wrapped, chosen, config)
    for parameter in wrapped.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()  # as PEFT does
    return fuse_lora(wrapped)


def _without_weights(config: Any) -> Any:
    """Return LoRA of the same rank for types that PEFT builds from the weights, which a plan does not have.

    AdaMSS and UniLoRA train fewer.
    """
    if config.peft_type == SPARSE:
        return without_places(config)
    if config.peft_type not in BUILT_FROM_WEIGHTS:
        return config
    kept = {key: getattr(config, key) for key in ("task_type", "r", "target_modules", "modules_to_save")}
    return LoraConfig(**kept)


def roles(
    plan: Blueprint, recipe: PolicyGradientRecipe, rewards: list[PeftConfig], value: Blueprint | None, *, gpu: bool
) -> Roles:
    """Build PPO's roles on the meta device, as `load_roles` builds them with weights."""
    loader = _WithoutWeights(plan, recipe, value, gpu)
    configs = {f"reward_{i}" if i else "reward": AdapterStart(role_config(each)) for i, each in enumerate(rewards)}
    sft = AdapterStart(role_config(plan.adapter)) if plan.adapter is not None else None
    base = loader.model(full=recipe.method.trains_base and not needs_base(recipe, configs))
    new = [adapter_config(recipe, task="CAUSAL_LM")] if recipe.method.has_adapter and sft is None else []
    _hold_whole(base, [*new, *(start.config for start in (sft, *configs.values()) if start)], recipe, gpu=gpu)
    with torch.device("meta"), _target_errors():
        built = build_roles(recipe, loader, base, sft=sft, rewards=configs)
        give_places(built)
    for role in ("policy", "reference"):
        built.logit_rules[id(built.causal_lm(role))] = LogitRule()  # to find the rule takes weights
    return built


@dataclass(frozen=True, slots=True)
class _WithoutWeights:
    """Builds models on the meta device."""

    plan: Blueprint
    recipe: PolicyGradientRecipe
    value: Blueprint | None
    gpu: bool

    def model(self, *, full: bool) -> Any:
        return bare(AutoModelForCausalLM, self.plan, self.recipe, full=full, gpu=self.gpu, padded=False)

    def config(self, config: PeftConfig) -> PeftConfig:
        found: PeftConfig = _without_weights(copy.deepcopy(config))
        return found

    def value_model(self, recipe: ValueRecipe) -> tuple[Any, ScalarHead]:
        assert self.value is not None
        changes = recipe.with_method(recipe.value_peft_method or recipe.peft_method)
        held = recipe if recipe.value_method.allows_bits(recipe.bits) else recipe.in_floats()
        model = policy(self.value, held.model_copy(update=changes), gpu=self.gpu, task="SEQ_CLS")
        classifier = model.get_base_model() if hasattr(model, "get_base_model") else model
        classifier.score = nn.Identity()
        return model, ScalarHead(self.value.config.get_text_config().hidden_size)


@contextlib.contextmanager
def _target_errors() -> Iterator[None]:
    """Raise PEFT's errors about target modules as ModelError."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"no adapter can be put on the model: {first_line(error)}") from error
