"""PEFT's models of soft prompts with the prompts on the decoder, for stages that train one model: SFT, DPO, reward."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PeftModelForCausalLM, PeftModelForSequenceClassification, get_peft_model
from peft.utils import load_peft_weights, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn

from alignment.policy.prompts import EMBEDDINGS, Prompts, as_saved, load_prompt, start_from_words

ENCODER_FILE = "prompt_encoder.safetensors"  # what training goes on from; PEFT's file holds what the encoder returns


class _OnDecoder(PeftModel):
    """Runs the base, whose decoder puts the active soft prompt in front."""

    prompts: Prompts
    _adapters_disabled: bool

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        kwargs = {key: value for key, value in kwargs.items() if key not in self.special_peft_forward_args}
        self._activate()
        return self.base_model(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        self._activate()
        return self.base_model.generate(*args, **kwargs)

    def _activate(self) -> None:
        self.prompts.activate(None if self._adapters_disabled else str(self.active_adapter))

    def set_adapter(self, adapter_name: str, *args: Any, **options: Any) -> None:
        super().set_adapter(adapter_name, *args, **options)
        self._activate()

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        before, self._adapters_disabled = self._adapters_disabled, True
        self._activate()
        try:
            yield
        finally:
            self._adapters_disabled = before
            self._activate()

    def add_adapter(self, adapter_name: str, peft_config: Any, *_: Any, **__: Any) -> None:
        """Add a soft prompt that starts as the first one. PEFT's would have no encoder if it is frozen."""
        encoder = copy.deepcopy(next(iter(self.prompt_encoder.values())))
        self.peft_config[adapter_name] = peft_config
        self.prompt_tokens[adapter_name] = next(iter(self.prompt_tokens.values()))
        self.prompt_encoder[adapter_name] = encoder.requires_grad_(not peft_config.inference_mode)
        self.prompts.add(adapter_name, encoder, peft_config)

    def save_pretrained(self, save_directory: str, *args: Any, **kwargs: Any) -> None:
        """Save as PEFT, and beside it the encoder where PEFT's file has none."""
        super().save_pretrained(save_directory, *args, **kwargs)
        encoder = self.prompt_encoder["default"]
        if len(list(encoder.parameters())) > 1 and kwargs.get("is_main_process", True):
            weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
            save_file(weights, Path(save_directory) / ENCODER_FILE)

    def load_adapter(self, model_id: str, adapter_name: str, *_: Any, **__: Any) -> Any:
        """Load what `save_pretrained` wrote into an adapter that exists, the encoder included."""
        return load_into(self, model_id, adapter_name)


class PromptedCausalLM(_OnDecoder, PeftModelForCausalLM):
    """A language model with a soft prompt."""


class PromptedClassifier(_OnDecoder, PeftModelForSequenceClassification):
    """A sequence classifier with a soft prompt."""


def on_decoder(wrapped: Any) -> Any:
    """Move the soft prompt of PEFT's model to the decoder."""
    classifies = isinstance(wrapped, PeftModelForSequenceClassification)
    wrapped.__class__ = PromptedClassifier if classifies else PromptedCausalLM
    prompts = Prompts(wrapped.base_model)
    del prompts.decoder.soft_prompts  # registered as PEFT's `prompt_encoder`
    wrapped.__dict__["prompts"] = prompts
    prompts.add("default", wrapped.prompt_encoder["default"], wrapped.peft_config["default"])
    wrapped._activate()
    return wrapped


def new_prompt(model: Any, config: Any) -> Any:
    """Put a new soft prompt on a model."""
    wrapped = on_decoder(get_peft_model(model, config))
    start_from_words(wrapped.base_model, wrapped.prompt_encoder["default"], config)
    return wrapped


def continue_prompt(model: Any, adapter: str, config: Any, *, task: str, trainable: bool, heads: list[str]) -> Any:
    """Put a saved soft prompt on a model.

    It is trained on without an encoder: what the encoder returned is the soft prompt. For another task it gets a new
    head.

    Raises: ModelError if it does not fit.
    """
    same = config.task_type == task
    shape = as_saved(config)
    shape.task_type = task
    if not same:
        shape.modules_to_save = heads or None
    wrapped = on_decoder(get_peft_model(model, shape))
    weights = load_peft_weights(adapter, device="cpu")
    load_prompt(wrapped.prompt_encoder["default"], {k: w for k, w in weights.items() if k == EMBEDDINGS}, adapter)
    if same and len(weights) > 1:
        set_peft_model_state_dict(wrapped, weights)
    shape.inference_mode = not trainable
    if not trainable:
        wrapped.requires_grad_(False)
    return wrapped


@torch.no_grad()
def load_into(wrapped: Any, folder: str, name: str) -> nn.Module:
    """Load a checkpoint's soft prompt and head into a model that has the same."""
    weights = load_peft_weights(folder, device="cpu")
    encoder = wrapped.prompt_encoder[name]
    file = Path(folder) / ENCODER_FILE
    if len(list(encoder.parameters())) > 1:
        encoder.load_state_dict(load_file(file))
    else:
        load_prompt(encoder, {k: w for k, w in weights.items() if k == EMBEDDINGS}, folder)
    modules = dict(wrapped.named_parameters())
    for key, tensor in weights.items():
        if key != EMBEDDINGS:
            place, _, last = key.rpartition(".")
            modules[f"{place}.modules_to_save.{name}.{last}"].copy_(tensor)
    return wrapped
