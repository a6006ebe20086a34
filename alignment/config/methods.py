"""The tuning methods of `peft_method`: a line of facts for each.

To add a method, write a module in `alignment/policy/methods` that builds its adapter, and list it here. A module may
build several methods.
"""

from collections.abc import Callable
from dataclasses import dataclass

LORA_KEYS = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_modules_to_save", "use_rslora")


@dataclass(frozen=True, slots=True)
class TuningMethod:
    """One value of `peft_method`."""

    title: str  # in messages
    family: str | None  # module of `alignment.policy.methods`; None: nothing is added to the model
    keys: tuple[str, ...] = ()  # of the recipe, that this method reads
    trains_base: bool = False  # the base's own weights train: they are held in float32, and no role shares them
    allows_4bit: bool = True  # the base may be held in 4 bits
    new_value: str = "lora"  # the method of PPO's value if it starts as a new adapter beside the policy's
    merges: bool = True  # `alignment merge` can add the adapter to the base's weights
    vllm_adapter: bool = False  # vLLM can sample with the adapter beside the base

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter is trained and saved, which can be continued and merged; else a whole model is."""
        return self.family is not None

    @property
    def copies_reference(self) -> bool:
        """Whether the reference is a second copy of the model; else it is the base with another adapter or none."""
        return self.trains_base


TUNING_METHODS: dict[str, TuningMethod] = {
    "full": TuningMethod("full fine-tuning", None, trains_base=True, allows_4bit=False),
    "lora": TuningMethod("LoRA", "lora", LORA_KEYS, vllm_adapter=True),
    "dora": TuningMethod("DoRA", "lora", LORA_KEYS),
}
ADAPTER_KEYS = tuple(dict.fromkeys(key for method in TUNING_METHODS.values() for key in method.keys))


def methods_where(fact: Callable[[TuningMethod], bool]) -> str:
    """Name the methods that have a fact, for a message: `lora or dora`."""
    names = [name for name, method in TUNING_METHODS.items() if fact(method)]
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
