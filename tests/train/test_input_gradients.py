"""Adapters are trained through checkpointed layers without a gradient of the input embeddings."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

from alignment.policy.checkpointing import checkpoint_layers, without_input_gradients
from alignment.train.arguments import checkpointing_key
from alignment.train.resuming import ResumableTrainer
from tests.models import save_tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("inputs") / "base")


def adapted(base: Any) -> Any:
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], layers_to_transform=[1], init_lora_weights=False)
    return get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)


def gradients(model: Any) -> tuple[dict[str, torch.Tensor], bool]:
    """The adapter's gradients, and whether the backward pass went below it."""
    below: list[bool] = []
    layer = model.get_base_model().model.layers[0]
    layer.register_full_backward_hook(lambda *_: below.append(True))
    ids = torch.arange(20, 32).unsqueeze(0)
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, bool(below)


@pytest.mark.parametrize("reentrant", [True, False])
def test_only_reentrant_checkpointing_goes_below_the_adapter(base, reentrant):
    plain, _ = gradients(adapted(base))
    model = adapted(base).train()
    kwargs = {"use_reentrant": reentrant}
    checkpoint_layers(model.get_base_model(), kwargs)
    model.enable_input_require_grads()
    without_input_gradients(model, kwargs)
    found, below = gradients(model)
    assert below == reentrant
    assert set(found) == set(plain)
    assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_every_trainer_of_ours_drops_them(base, tmp_path):
    model = adapted(base)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to=[], max_steps=1, save_strategy="no", disable_tqdm=True,
        **{checkpointing_key(TrainingArguments): True},
        **{f"{checkpointing_key(TrainingArguments)}_kwargs": {"use_reentrant": False}},
    )  # fmt: skip
    model.enable_input_require_grads()
    rows = [{"input_ids": [5, 6, 7, 8], "labels": [5, 6, 7, 8]}] * 8
    tokenizer = AutoTokenizer.from_pretrained(base)
    seen: list[bool] = []
    model.get_input_embeddings().register_forward_hook(lambda _, __, output: seen.append(output.requires_grad))
    ResumableTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer).train()
    assert seen == [False] * len(seen)
    assert seen
