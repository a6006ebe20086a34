"""The types of PEFT that a recipe can name, with their facts, and those that it cannot, with the reason.

`alignment.config.methods` makes a tuning method of each. tests/policy/test_peft_types.py tries each fact, and requires
a line for every type that the installed PEFT registers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RANDOM_START = "PEFT's other values start from a random function, and references are the base"
ALL_LINEAR = {"target_modules": "all-linear"}


@dataclass(frozen=True, slots=True)
class PeftFacts:
    """What a type of PEFT is and can do."""

    config: str  # its configuration class, "package.module:Class"
    title: str  # in messages
    defaults: Mapping[str, Any] = field(default_factory=lambda: ALL_LINEAR)  # a new adapter starts as the base
    withheld: Mapping[str, str] = field(default_factory=dict)  # fields that a recipe may not give, and why
    allows_4bit: bool = True
    allows_8bit: bool = True
    merges: bool = True
    merges_biases: bool = False  # it can where every module that the adapter changes has a bias


def _facts(
    where: str,
    title: str,
    *,
    fp: bool = False,
    fp_or_8: bool = False,
    merges: bool = True,
    merges_biases: bool = False,
    **defaults: Any,
) -> PeftFacts:
    """Return a type's facts; `fp`: its base must be held in floating point, `fp_or_8`: or in 8 bits."""
    given = ALL_LINEAR | defaults
    defaults = {key: value for key, value in given.items() if value is not None}
    withheld = {key: RANDOM_START for key in defaults if key == "init_weights"}
    allowed = {"allows_4bit": not (fp or fp_or_8), "allows_8bit": not fp}
    return PeftFacts(
        f"peft.tuners.{where}", title, defaults, withheld, **allowed, merges=merges, merges_biases=merges_biases
    )


GENERIC: dict[str, PeftFacts] = {
    "ia3": _facts("ia3:IA3Config", "(IA)³", target_modules=None),  # PEFT's: keys, values and down-projections
    "oft": _facts("oft:OFTConfig", "OFT"),
    "vera": _facts("vera:VeraConfig", "VeRA"),
    "ln_tuning": _facts("ln_tuning:LNTuningConfig", "LN tuning", target_modules=None),  # PEFT's: the layer norms
    "miss": _facts("miss:MissConfig", "MiSS"),
    "adamss": _facts("adamss:AdamssConfig", "AdaMSS", fp=True),
    "beft": _facts("beft:BeftConfig", "BEFT", merges=False, merges_biases=True),
    "c3a": _facts("c3a:C3AConfig", "C3A", init_weights=True),
    "deft": _facts("deft:DeftConfig", "DEFT", fp_or_8=True),
    "delora": _facts("delora:DeloraConfig", "DeLoRA", fp=True),
    "fourierft": _facts("fourierft:FourierFTConfig", "FourierFT", init_weights=True),
    "glora": _facts("glora:GloraConfig", "GLoRA", fp=True),
    "gralora": _facts("gralora:GraloraConfig", "GraLoRA"),
    "hira": _facts("hira:HiraConfig", "HiRA"),
    "hra": _facts("hra:HRAConfig", "HRA", fp=True),
    "loha": _facts("loha:LoHaConfig", "LoHa", fp_or_8=True),
    "lokr": _facts("lokr:LoKrConfig", "LoKr", fp_or_8=True),
    "osf": _facts("osf:OSFConfig", "OSF", fp=True),
    "peanut": _facts("peanut:PeanutConfig", "PEANuT", fp=True),
    "psoft": _facts("psoft:PsoftConfig", "PSOFT", fp=True),
    "randlora": _facts("randlora:RandLoraConfig", "RandLoRA", fp=True),  # quantised, a second adapter wraps the first
    "road": _facts("road:RoadConfig", "RoAd"),
    "shira": _facts("shira:ShiraConfig", "SHiRA"),
    "supertuning": _facts("supertuning:SupertuningConfig", "Supertuning", fp=True),
    "tinylora": _facts("tinylora:TinyLoraConfig", "TinyLoRA", fp=True),
    "unilora": _facts("unilora:UniLoraConfig", "UniLoRA", fp=True),  # quantised, its gradient is 0
    "vblora": _facts("vblora:VBLoRAConfig", "VB-LoRA"),
    "waveft": _facts("waveft:WaveFTConfig", "WaveFT"),
}
REFUSED: dict[str, str] = {
    "adaption_prompt": "PEFT does not train a reward model's head beside it; use prefix_tuning",
    "boft": "PEFT compiles C++ code for it while it loads; use oft",
    "cartridge": "it compresses one text into a cache, which is no training on data; use prefix_tuning",
    "cpt": "its loss needs the types of the tokens of each example, which no stage has; use prompt_tuning",
    "frod": "torch does not check the sparse indices that its files hold; use vera",
    "lily": "its layers share matrices that PEFT gives to every adapter, so a reference follows the policy; use lora",
    "multitask_prompt_tuning": "it needs a task's number in every row; use prompt_tuning",
    "poly": "it needs a task's number in every row; use lora",
    "pvera": "it adds random numbers to every pass, so probabilities cannot be compared; use vera",
    "shadow": "it replaces whole layers of the base, which other roles share; use lora",
    "trainable_tokens": "PEFT does not train a reward model's head beside it; use lora_modules_to_save",
    "xlora": "it mixes LoRA adapters that exist; use alignment combine",
}
