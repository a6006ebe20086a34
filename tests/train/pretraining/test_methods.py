"""Every tuning method with every objective: it trains its own weights, and what it saves is what it trained."""

import math

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, Trainer

from alignment.config.methods import TUNING_METHODS
from alignment.errors import ModelError
from tests.models import save_tiny_encoder, save_tiny_t5
from tests.train.pretraining.conftest import losses, run
from tests.tuned import FITTING, save_base

OBJECTIVES = ("causal", "masked", "seq2seq")
FAST = (("causal", "p_tuning_v2"), ("masked", "lora"), ("seq2seq", "bottleneck"))
SOFT_PROMPTS = tuple(name for name, method in TUNING_METHODS.items() if method.family == "soft_prompts")
CLASSES = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM, "seq2seq": AutoModelForSeq2SeqLM}
KEYS = {
    **{name: {"peft_config": config} for name, config in FITTING.items()},
    "adalora": {"peft_config": {"tinit": 0, "tfinal": 1}},
    "miss": {"peft_config": {"r": 8}},  # T5's attention is narrower than PEFT's default
}
SAVED_AS_LORA = 1e-5  # logits that may differ, of AdaLoRA


def model_for(objective, folder):
    if not (folder / objective).exists():
        make = {"causal": save_base, "masked": save_tiny_encoder, "seq2seq": save_tiny_t5}[objective]
        make(folder / objective, **({} if objective == "causal" else {"width": 64}))
    return folder / objective


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@torch.no_grad()
def logits(model, objective):
    ids = torch.arange(5, 30)[None]
    more = {"decoder_input_ids": ids[:, 3:12]} if objective == "seq2seq" else {}
    return model.eval()(input_ids=ids, **more).logits[:, -9:].float()


def trained(objective, name, models, write, monkeypatch):
    """Run three steps; return the weights that changed, those that train, and the logits."""
    seen, train = {}, Trainer.train

    def watched(trainer, *given, **keys):
        weights = dict(trainer.model.named_parameters())
        before = {key: weight.detach().clone() for key, weight in weights.items()}
        done = train(trainer, *given, **keys)
        seen["trains"] = {key for key, weight in weights.items() if weight.requires_grad}
        seen["changed"] = {key for key, weight in weights.items() if not torch.equal(weight, before[key])}
        seen["logits"] = logits(trainer.model, objective)
        return done

    monkeypatch.setattr(Trainer, "train", watched)
    keys = {"peft_method": name, **KEYS.get(name, {}), "max_steps": 3, "use_cpu": True}
    if name == "ln_tuning" and objective == "masked":
        keys["peft_config"] = {"target_modules": ["LayerNorm"]}
    run(write(objective=objective, model_name_or_path=str(model_for(objective, models)), **keys))
    return seen


@pytest.mark.parametrize(
    ("objective", "name"),
    [
        pytest.param(objective, name, marks=() if (objective, name) in FAST else pytest.mark.slow)
        for objective in OBJECTIVES
        for name in TUNING_METHODS
        if objective == "causal" or name not in SOFT_PROMPTS
    ],
)
def test_a_method_trains_its_weights_and_saves_what_it_trained(objective, name, models, write, tmp_path, monkeypatch):
    seen = trained(objective, name, models, write, monkeypatch)
    assert all(map(math.isfinite, losses(tmp_path / "run")))
    assert seen["changed"]
    assert seen["changed"] <= seen["trains"]
    plain = CLASSES[objective]
    if TUNING_METHODS[name].has_adapter:
        again = PeftModel.from_pretrained(plain.from_pretrained(models / objective), tmp_path / "run")
    else:
        again = plain.from_pretrained(tmp_path / "run")
    difference = (logits(again, objective) - seen["logits"]).abs().max()
    assert difference <= (SAVED_AS_LORA if name == "adalora" else 0)
    assert not torch.equal(seen["logits"], logits(plain.from_pretrained(models / objective), objective))


@pytest.mark.parametrize("objective", ["masked", "seq2seq"])
@pytest.mark.parametrize("name", SOFT_PROMPTS)
def test_a_soft_prompt_is_refused_where_there_is_no_decoder_alone(objective, name, models, write, tmp_path):
    with pytest.raises(ModelError, match=f"{name} puts a soft prompt before the inputs of a decoder-only") as error:
        run(write(objective=objective, model_name_or_path=str(model_for(objective, models)), peft_method=name))
    assert error.value.exit_code == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "keys", "told"),
    [
        ("bert", {"peft_method": "ln_tuning"}, "no default target_modules for BertForMaskedLM; name some of LayerNorm"),
        ("modernbert", {"peft_method": "ia3"}, "no default target_modules for ModernBertForMaskedLM"),
        ("bert", {"peft_method": "ia3", "peft_config": {"target_modules": ["key"]}}, None),
        ("bert", {"peft_method": "lora", "lora_target_modules": ["q_proj"]}, "the model has no module q_proj"),
    ],
)
def test_modules_that_a_model_lacks_are_refused_before_a_folder_is_made(kind, keys, told, write, tmp_path):
    model = save_tiny_encoder(tmp_path / kind, kind=kind)
    file = write(objective="masked", model_name_or_path=str(model), max_steps=1, **keys)
    if told is None:
        run(file)
        return
    with pytest.raises(ModelError, match=told) as error:
        run(file)
    assert error.value.exit_code == 2
    assert not (tmp_path / "run").exists()
