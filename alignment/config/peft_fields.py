"""Fields of PEFT's configurations that no recipe gives and no saved adapter decides, with the reason."""

from typing import Any

_FILES = "it names files or modules that a run does not record"
_OTHER = "PEFT keeps it outside the adapter, where references and other roles share it"
OWNED: dict[str, str] = {  # decided by the project
    "task_type": "it follows from the stage",
    "peft_type": "it follows from peft_method",
    "auto_mapping": "no model needs it",
    "peft_version": "PEFT writes it",
    "base_model_name_or_path": "it is model_name_or_path",
    "revision": "it is model_revision",
    "inference_mode": "it follows from what the model is loaded for",
}
WITHHELD: dict[str, tuple[tuple[Any, ...], str]] = {  # values that are allowed, and why no others are
    "megatron_config": ((None,), _FILES),
    "megatron_core": ((None, "megatron.core"), _FILES),
    "corda_config": ((None,), _FILES),
    "lora_ga_config": ((None,), _FILES),
    "arrow_config": ((None,), "it routes between adapters that exist"),
    "runtime_config": ((None,), "PEFT does not save it"),
    "layer_replication": ((None,), "PEFT merges it wrongly, and roles share the layers"),
    "velora_config": ((None,), "it is not supported"),
    "monteclora_config": ((None,), "it adds random numbers to every pass"),
    "kasa_config": ((None,), "it is not supported"),
    "use_bdlora": ((None,), "it is not supported"),
    "use_qalora": ((None, False), "it needs GPTQ weights"),
    "qalora_group_size": ((None, 16), "it needs GPTQ weights"),
    "alora_invocation_tokens": ((None,), "it is not supported"),
    "trainable_token_indices": ((None,), _OTHER),
    "loftq_config": ((None, {}), "LoftQ changes the base's weights; use load_in_4bit or load_in_8bit"),
    "use_dora": ((None, False), "it is peft_method: dora"),
    "bias": (("none",), f"{_OTHER}; use peft_method bitfit"),
    "tokenizer_name_or_path": ((None,), _FILES),
    "tokenizer_kwargs": ((None, {}), _FILES),
    "prompt_tuning_init_state_dict_path": ((None,), _FILES),
}
