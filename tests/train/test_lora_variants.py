"""Variants of LoRA: ranks by module, layers, LoRA+, and starts that PEFT takes out of the base."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from alignment.errors import ModelError
from alignment.policy.adapter_files import read_adapter_config
from alignment.policy.base import load_causal_lm
from alignment.policy.methods.eva import start_from_rows
from alignment.train.dpo import dpo_trainer
from alignment.train.saving import save_trained
from alignment.train.sft import sft_trainer
from alignment.train.tuning import method_callbacks
from tests.train.test_adalora import ROWS, Killed
from tests.train.test_dpo import arguments as dpo_arguments
from tests.train.test_dpo import pairs
from tests.train.test_sft import arguments
from tests.tuned import Keys, apart, logits, save_base


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("models") / "base")


def load(path, **keys):
    given = Keys(model_name_or_path=str(path), **keys)
    torch.manual_seed(0)
    return load_causal_lm(given, trainable=True, peft=given), given


def sft(base, out, *more, keys, **changes):
    model, given = load(base, **keys)
    settings = {"max_steps": 6, "learning_rate": 5e-3, "seed": 1, **changes}
    tokenizer = AutoTokenizer.from_pretrained(base)
    callbacks = [*method_callbacks(given, model), *more]
    return sft_trainer(model, tokenizer, arguments(out, **settings), train=ROWS, callbacks=callbacks)


def ranks(model):
    return {n.partition("model.layers.")[2]: len(p) for n, p in model.named_parameters() if ".lora_A." in n}


def test_ranks_and_scales_by_module(base):
    model, _ = load(base, lora_r=8, peft_config={"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 4}})
    found = ranks(model)
    assert {rank for name, rank in found.items() if "q_proj" in name} == {2}
    assert {rank for name, rank in found.items() if "q_proj" not in name} == {8}
    scale = {name: m.scaling["default"] for name, m in model.named_modules() if hasattr(m, "lora_A")}
    assert {scale[name] for name in scale if "v_proj" in name} == {4 / 8}
    assert {scale[name] for name in scale if "q_proj" in name} == {32 / 2}


@pytest.mark.parametrize("targets", ["all-linear", r".*\.(q|down)_proj", ["q_proj", "down_proj"]])
def test_layers_can_be_chosen_with_any_targets(base, targets):
    model, _ = load(base, lora_target_modules=targets, peft_config={"layers_to_transform": [1]})
    assert {name[0] for name in ranks(model)} == {"1"}
    assert len(ranks(model)) == (7 if targets == "all-linear" else 2)


def test_a_layer_that_does_not_exist_is_refused(base):
    with pytest.raises(ModelError, match=r"layers_to_transform: the model has no layer 2, 7; its 2 layers are 0 to 1"):
        load(base, peft_config={"layers_to_transform": [1, 2, 7]})


class Rates(TrainerCallback):
    def on_step_begin(self, args, state, control, model=None, optimizer=None, **_):
        names = {id(p): name for name, p in model.named_parameters()}
        self.found = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def test_lora_plus_trains_b_faster(base, tmp_path):
    seen = Rates()
    trainer = sft(base, tmp_path, seen, keys={"loraplus_lr_ratio": 16.0}, lr_scheduler_type="constant")
    trainer.train()
    assert {seen.found[name] for name in seen.found if "lora_A" in name} == {5e-3}
    assert {seen.found[name] for name in seen.found if "lora_B" in name} == {16 * 5e-3}
    assert set(seen.found) == {name for name, p in trainer.model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora"])
def test_starts_out_of_the_base_are_saved_as_plain_lora(base, tmp_path, start):
    keys = {"lora_r": 4, "use_rslora": True, "peft_config": {"init_lora_weights": start}}
    trainer = sft(base, tmp_path / "work", keys=keys)
    plain = logits(AutoModelForCausalLM.from_pretrained(base))
    assert apart(logits(trainer.model), plain) < 1e-4
    with trainer.model.disable_adapter():
        assert apart(logits(trainer.model), plain) > 1e-2  # the base has changed
    trainer.train()
    expected = logits(trainer.model)
    assert apart(expected, plain) > 1e-2
    run = tmp_path / "run"
    run.mkdir()
    save_trained(trainer, run)
    config = read_adapter_config(run)
    assert (config.init_lora_weights, config.r) == (True, 8)
    saved = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), run)
    assert apart(logits(saved), expected) < 1e-4
    with saved.disable_adapter():
        assert apart(logits(saved), plain) == 0


def test_a_killed_run_that_started_out_of_the_base_ends_at_the_same_weights(base, tmp_path):
    keys = {"lora_r": 4, "peft_config": {"init_lora_weights": "pissa"}}
    straight = sft(base, tmp_path / "a", keys=keys)
    straight.train()
    saving = {"save_strategy": "steps", "save_steps": 3}
    with pytest.raises(KeyboardInterrupt):
        sft(base, tmp_path / "b", Killed(), keys=keys, **saving).train()
    resumed = sft(base, tmp_path / "b", keys=keys, **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-3"))
    expected = dict(straight.model.named_parameters())
    assert all(torch.equal(p, expected[name]) for name, p in resumed.model.named_parameters())


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_dpo_from_such_a_start_begins_at_ln_2(base, tmp_path, start):
    model, _ = load(base, lora_r=4, peft_config={"init_lora_weights": start})
    plain = logits(AutoModelForCausalLM.from_pretrained(base))
    tokenizer = AutoTokenizer.from_pretrained(base)
    trainer = dpo_trainer(model, tokenizer, dpo_arguments(tmp_path, max_steps=2, beta=1.0), train=pairs())
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)
    model.set_adapter("ref")
    assert apart(logits(model), plain) < 1e-4


def test_eva_gives_ranks_by_what_the_layers_read_and_is_saved_as_plain_lora(base, tmp_path):
    keys = {"lora_r": 4, "peft_config": {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}}}
    model, _ = load(base, **keys)
    plain = logits(AutoModelForCausalLM.from_pretrained(base))
    start_from_rows(model, ROWS, 0)
    assert apart(logits(model), plain) == 0
    found = ranks(model)
    assert sum(found.values()) == 4 * 14
    assert len(set(found.values())) > 1
    reads = {}
    layer = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    layer.register_forward_pre_hook(lambda _, inputs: reads.setdefault("x", inputs[0].detach()))
    ids = torch.tensor([row["input_ids"] for row in ROWS])
    model.eval()(input_ids=ids)
    right = layer.lora_A["default"].weight.detach()
    assert torch.allclose(right @ right.T, torch.eye(len(right)), atol=1e-4)  # directions
    states = reads["x"][torch.tensor([row["labels"] for row in ROWS]) != -100]
    seen = (states @ right.T).var(0)
    assert (seen[:-1] >= seen[1:] * 0.5).all()  # by falling variance, as far as batches tell
    assert all(p.requires_grad for name, p in model.named_parameters() if ".lora_" in name)
    model.save_pretrained(tmp_path)
    assert read_adapter_config(tmp_path).init_lora_weights is True
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path)
    assert ranks(again) == found
