"""The tuning methods of `peft_method`: a line of facts for each.

To add a method, list it in `TUNING_METHODS` below:

- **A type of PEFT** needs nothing more: `peft_types` lists it with its facts, and `alignment.policy.methods.generic`
  builds it. `config` names its configuration class, whose fields are the keys of `peft_config`.
- **A method of our own** has a module in `alignment/policy/methods`, named by `family`, which may build several
  methods; that package's docstring lists what the module defines. `config` names a dataclass of the module (or any
  other), whose fields are the keys of `peft_config` with their types: "package.module:Class". The class is read from
  its source, so its module may import torch. A module that builds a type of PEFT takes precedence over `generic`.
- **A method that trains weights of the base** has `trains_base=True`. Without a family a whole model is saved; with one
  its module decides what trains and what is saved.

Planner, checks and trainers read these facts; `tests/policy/test_peft_types.py` tries each fact.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alignment.config.peft_types import GENERIC, REFUSED, PeftFacts

LORA_KEYS = (
    "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_modules_to_save", "use_rslora",
    "loraplus_lr_ratio",
)  # fmt: skip
LORA_CONFIG = "peft.tuners.lora:LoraConfig"
LORA_WITHHELD = {"use_dora": "it is peft_method: dora"}
ADALORA = {"target_modules": "all-linear", "lora_alpha": 32}
ADALORA_WITHHELD = {
    "r": "AdaLoRA has init_r and target_r",
    "total_step": "it is the run's number of steps",
    "rank_pattern": "it is learned",
    "alpha_pattern": "AdaLoRA does not read it",
    "use_rslora": "AdaLoRA does not read it",
    "eva_config": "AdaLoRA does not read it",
}


@dataclass(frozen=True, slots=True)
class TuningMethod:
    """One value of `peft_method`."""

    title: str  # in messages
    family: str | None  # module of `alignment.policy.methods`; None: nothing is added to the model
    keys: tuple[str, ...] = ()  # of the recipe, that this method reads beside `peft_config`
    config: str = ""  # dataclass whose fields `peft_config` takes, "package.module:Class"; "": it takes none
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of those fields, where they differ from the class's
    withheld: Mapping[str, str] = field(default_factory=dict)  # fields that a recipe may not give, and why
    trains_base: bool = False  # the base's own weights train: they are held in float32, and no role shares them
    allows_4bit: bool = True  # the base may be held in 4 bits
    allows_8bit: bool = True  # the base may be held in 8 bits
    new_value: str = "lora"  # the method of PPO's value if it starts as a new adapter beside the policy's
    merges: bool = True  # `alignment merge` can add the adapter to the base's weights
    merges_biases: bool = False  # it can where every module that the adapter changes has a bias
    copies_modules: bool = False  # it trains copies of the base's modules, which are then not quantised
    steps: str | None = None  # module of `alignment.policy.methods` with callbacks, of a method without a family
    reads_gradients: bool = False  # between backward and optimizer step; DeepSpeed and FSDP2 hold them in shards
    samples_ranks: bool = False  # a step computes with part of the adapter, and changes that part alone
    loads_in_transformers: bool = True  # `from_pretrained` of transformers loads a model with the adapter
    own_type: bool = False  # of adapters, which PEFT has once the family's module is imported
    vllm_adapter: bool = False  # vLLM can sample with the adapter beside the base

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter is trained and saved, which can be continued and merged; else a whole model is."""
        return self.family is not None

    def allows_bits(self, bits: int | None) -> bool:
        """Whether the base may be held in 4 or 8 bits; None: in floating point."""
        return {4: self.allows_4bit, 8: self.allows_8bit, None: True}[bits]

    @property
    def is_lora(self) -> bool:
        """Whether the adapter's layers are PEFT's `LoraLayer`, whose increment of the weights is computed here too."""
        return self.family in ("lora", "adalora", "dylora")

    @property
    def copies_reference(self) -> bool:
        """Whether the reference is a second copy of the model; else it is the base with another adapter or none."""
        return self.trains_base


def _generic(name: str, facts: PeftFacts) -> TuningMethod:
    return TuningMethod(
        facts.title,
        "generic",
        new_value=name,
        config=facts.config,
        defaults=facts.defaults,
        withheld=facts.withheld,
        allows_4bit=facts.allows_4bit,
        allows_8bit=facts.allows_8bit,
        merges=facts.merges,
        merges_biases=facts.merges_biases,
    )


def _own(title: str, module: str | None, cls: str, **facts: Any) -> TuningMethod:
    """Return a method of our own, with the class of `own_methods` that has its keys."""
    facts = {"new_value": module, **facts}
    return TuningMethod(title, module, config=f"alignment.config.own_methods:{cls}", **facts)


def _soft_prompt(title: str, where: str, **defaults: Any) -> TuningMethod:
    shape = ("token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers")
    withheld = dict.fromkeys(shape, "it follows from the model")
    projection = {"prefix_projection": "it follows from peft_method: prefix_tuning has it, p_tuning_v2 does not"}
    return TuningMethod(
        title,
        "soft_prompts",
        config=f"peft.tuners.{where}",
        defaults={"num_virtual_tokens": 20, **defaults},
        withheld={**withheld, **(projection if "Prefix" in where else {})},
        merges=False,
        loads_in_transformers=False,
    )


PREFIX_CONFIG = "prefix_tuning:PrefixTuningConfig"
TUNING_METHODS: dict[str, TuningMethod] = {
    "full": TuningMethod("full fine-tuning", None, trains_base=True, allows_4bit=False, allows_8bit=False),
    "lora": TuningMethod("LoRA", "lora", LORA_KEYS, LORA_CONFIG, withheld=LORA_WITHHELD, vllm_adapter=True),
    "dora": TuningMethod("DoRA", "lora", LORA_KEYS, LORA_CONFIG, withheld=LORA_WITHHELD),
    "adalora": TuningMethod(
        "AdaLoRA",
        "adalora",
        config="peft.tuners.adalora:AdaLoraConfig",
        defaults=ADALORA,
        withheld=ADALORA_WITHHELD,
        reads_gradients=True,
    ),
    "dylora": TuningMethod("DyLoRA", "dylora", LORA_KEYS, LORA_CONFIG, withheld=LORA_WITHHELD, samples_ranks=True),
    "freeze": _own("freeze", "freeze", "FreezeKeys", copies_modules=True),
    "bitfit": _own(
        "BitFit",
        "bitfit",
        "BitfitKeys",
        merges=False,
        merges_biases=True,
        own_type=True,
    ),
    "fishmask": _own("FISH mask", "fishmask", "FishmaskKeys", new_value="lora"),
    "child_tuning": _own(
        "Child-tuning F",
        None,
        "ChildTuningKeys",
        trains_base=True,
        allows_4bit=False,
        allows_8bit=False,
        new_value="lora",
        steps="child_tuning",
        reads_gradients=True,
    ),
    "child_tuning_d": _own(
        "Child-tuning D",
        "child_tuning_d",
        "FishmaskKeys",
        defaults={"fraction": 0.1},
        new_value="lora",
    ),
    "bottleneck": _own(
        "bottleneck adapters",
        "bottleneck",
        "BottleneckKeys",
        merges=False,
        own_type=True,
    ),
    **{name: _generic(name, facts) for name, facts in GENERIC.items()},
    "prompt_tuning": _soft_prompt(
        "prompt tuning", "prompt_tuning:PromptTuningConfig", prompt_tuning_init="SAMPLE_VOCAB"
    ),
    "p_tuning": _soft_prompt("P-tuning", "p_tuning:PromptEncoderConfig"),
    "prefix_tuning": _soft_prompt("prefix tuning", PREFIX_CONFIG),
    "p_tuning_v2": _soft_prompt("P-tuning v2", PREFIX_CONFIG),
}
ADAPTER_KEYS = tuple(dict.fromkeys(key for method in TUNING_METHODS.values() for key in method.keys))


def known_method(name: str) -> str:
    """Return the name of a tuning method as it is.

    Raises: ValueError if there is no such method, or PEFT has one that no recipe can use.
    """
    if name in TUNING_METHODS:
        return name
    if name in REFUSED:
        raise ValueError(f"{name} cannot be used: {REFUSED[name]}")
    near = difflib.get_close_matches(name.lower(), [*TUNING_METHODS], n=1, cutoff=0.6)
    shown = repr(name if len(name) <= 60 else name[:57] + "...")
    remedy = f"did you mean {near[0]}?" if near else "docs/tuning.md lists the methods"
    raise ValueError(f"{shown} is not a tuning method; {remedy}")


def methods_where(fact: Callable[[TuningMethod], bool], most: int = 2) -> str:
    """Name the methods that have a fact, the most usual first, for a message: `lora or dora`."""
    found = [name for name, method in TUNING_METHODS.items() if fact(method)]
    names = found[:most]
    if len(found) > most:
        return f"{', '.join(names)} or another that docs/tuning.md lists"
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
