"""Prompt tuning, P-tuning, prefix tuning and P-tuning v2: PEFT's encoders; `alignment.policy.prompts` applies them."""

from dataclasses import dataclass
from typing import Any

from peft import PeftConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from alignment.config.schema import AdapterKeys
from alignment.errors import ModelError, first_line
from alignment.policy.methods.generic import Generic

TYPES = {
    "prompt_tuning": "PROMPT_TUNING",
    "p_tuning": "P_TUNING",
    "prefix_tuning": "PREFIX_TUNING",
    "p_tuning_v2": "PREFIX_TUNING",
}


@dataclass(frozen=True, slots=True)
class SoftPrompts(Generic):
    """The family of one type of soft prompt."""

    @property
    def PEFT_TYPE(self) -> str:
        """The type in adapter_config.json."""
        return TYPES[self.name]

    @property
    def PREFIX(self) -> str:
        """How the names of the adapter's parameters begin: in PEFT's models and in the decoder of roles."""
        return "prompt_encoder"

    def new_config(self, keys: AdapterKeys, *, task: str, modules_to_save: list[str] | None) -> PeftConfig:
        """Return the configuration of a new soft prompt."""
        cls = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(self.PEFT_TYPE)]
        given = {**keys.fields(), "modules_to_save": modules_to_save}
        if self.PEFT_TYPE == "PREFIX_TUNING":
            given["prefix_projection"] = self.name == "prefix_tuning"
        try:
            config: PeftConfig = cls(task_type=task, **given)
        except ValueError as error:
            raise ModelError(f"peft_config: {first_line(error)}; use prompt_tuning_init: SAMPLE_VOCAB") from error
        return config

    def recipe_keys(self, config: PeftConfig) -> dict[str, Any]:
        """Return the recipe keys that an existing soft prompt determines."""
        if self.PEFT_TYPE != "PREFIX_TUNING":
            return {"peft_method": self.name}
        return {"peft_method": "prefix_tuning" if config.prefix_projection else "p_tuning_v2"}


def family(name: str) -> SoftPrompts:
    """Return the family of a method."""
    return SoftPrompts(name)
