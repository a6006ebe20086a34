"""AdaLoRA prunes in every stage, resumes in the middle of pruning, and is handed on as plain LoRA."""

import copy

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from alignment.errors import TrainingError
from alignment.policy.adapter_files import read_adapter_config
from alignment.policy.base import load_causal_lm
from alignment.policy.methods.adalora import Pruning
from alignment.train.dpo import dpo_trainer
from alignment.train.saving import save_trained
from alignment.train.sft import sft_trainer
from alignment.train.tuning import method_callbacks
from tests.models import make_model, make_tokenizer
from tests.train.ppo_runs import make_trainer as ppo_trainer
from tests.train.ppo_runs import trained_weights
from tests.train.test_dpo import arguments as dpo_arguments
from tests.train.test_dpo import pairs
from tests.train.test_sft import arguments
from tests.tuned import Keys, apart, logits

SCHEDULE = {"init_r": 12, "target_r": 4, "tinit": 5, "tfinal": 10}
ROWS = [{"input_ids": [2, 10 + i, 11, 20 + i, 21, 1], "labels": [-100, -100, -100, 20 + i, 21, 1]} for i in range(16)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adalora") / "base"
    tokenizer = make_tokenizer()
    make_model(tokenizer, layers=5, initializer_range=0.2).save_pretrained(folder)  # 5 layers of 7 modules
    tokenizer.save_pretrained(folder)
    return folder


class Ranks(TrainerCallback):
    """Notes the sum of all ranks after each step, by the step's number from 0."""

    def __init__(self, pruning):
        self.pruning, self.at = pruning, {}

    def on_step_end(self, args, state, control, **_):
        self.at[state.global_step - 1] = self.pruning.ranks()


class Killed(TrainerCallback):
    def on_save(self, args, state, control, **_):
        raise KeyboardInterrupt


def keys(path, **schedule):
    return Keys(model_name_or_path=str(path), peft_method="adalora", peft_config={**SCHEDULE, **schedule})


def sft(base, out, *more, schedule=None, **changes):
    given = keys(base, **(schedule or {}))
    torch.manual_seed(0)
    model = load_causal_lm(given, trainable=True, peft=given)
    callbacks = method_callbacks(given, model)
    settings = {"max_steps": 40, "learning_rate": 5e-3, "logging_steps": 10, "seed": 1, **changes}
    trainer = sft_trainer(
        model,
        AutoTokenizer.from_pretrained(base),
        arguments(out, **settings),
        train=ROWS,
        callbacks=[*callbacks, *more],
    )
    return trainer, callbacks[0]


def test_ranks_fall_as_the_paper_has_it(base, tmp_path):
    trainer, pruning = sft(base, tmp_path)
    ranks = Ranks(pruning)
    trainer.add_callback(ranks)
    trainer.train()
    # 35 · 12 = 420 falls to 35 · 4 = 140 between steps 5 and 30 as 140 + 280 (1 - (t - 5) / 25)³, rounded down:
    # 280 · 0.96³ = 247.7, 280 · 0.8³ = 143.4, 280 · 0.4³ = 17.9
    assert [ranks.at[step] for step in (5, 6, 10, 20, 30, 39)] == [420, 387, 283, 157, 140, 140]
    free, unheld = sft(base, tmp_path, schedule={"orth_reg_weight": 0.0})
    free.train()
    assert pruning.orthogonality().item() < unheld.orthogonality().item() - 0.5
    values = [p for name, p in trainer.model.named_parameters() if ".lora_E." in name]
    assert sum(int((value != 0).sum()) for value in values) == 140


def test_the_orthogonality_term_has_its_gradient(base, tmp_path):
    _, pruning = sft(base, tmp_path)
    own = dict(pruning.weights.named_parameters())
    left, right = (next(p for n, p in own.items() if f".lora_{part}." in n) for part in "BA")
    count = len(pruning.vectors)
    assert count == 70
    # d/dQ ‖Q Qᵀ − I‖ = 2 (Q Qᵀ − I) Q / ‖Q Qᵀ − I‖, and the mean is over 70 matrices
    for vector in (right, left.T):
        square = vector @ vector.T - torch.eye(len(vector))
        expected = 0.5 / count * 2 * square @ vector / square.norm()
        for parameter in pruning.trained:
            parameter.grad = torch.zeros_like(parameter)
        pruning.on_pre_optimizer_step(None, None, None)
        found = (right.grad, left.grad.T)[vector is not right]
        assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("at", [3, 8, 20, 32])
def test_a_run_killed_before_within_and_after_pruning_ends_at_the_same_weights(base, tmp_path, at):
    straight, _ = sft(base, tmp_path / "a")
    straight.train()
    saving = {"save_strategy": "steps", "save_steps": at}
    killed, _ = sft(base, tmp_path / "b", Killed(), **saving)
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    resumed, pruning = sft(base, tmp_path / "b", **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "b" / f"checkpoint-{at}"))
    expected = dict(straight.model.named_parameters())
    assert all(torch.equal(p, expected[name]) for name, p in resumed.model.named_parameters())
    assert pruning.ranks() == 140


def test_it_is_saved_as_plain_lora(base, tmp_path):
    trainer, _ = sft(base, tmp_path / "work")
    trainer.train()
    expected = logits(trainer.model)
    run = tmp_path / "run"
    run.mkdir()
    save_trained(trainer, run)
    config = read_adapter_config(run)
    assert (config.peft_type, sum(config.rank_pattern.values())) == ("LORA", 140)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), run)
    assert apart(logits(plain), expected) < 1e-4
    continued = Keys(model_name_or_path=str(run))
    model = load_causal_lm(continued, trainable=True, peft=continued)
    assert apart(logits(model), expected) < 1e-4


def test_dpo_prunes_against_a_reference_that_stays(base, tmp_path):
    given = keys(base, tinit=1, tfinal=2)
    torch.manual_seed(0)
    model = load_causal_lm(given, trainable=True, peft=given)
    callbacks = method_callbacks(given, model)
    settings = dpo_arguments(tmp_path, max_steps=8, learning_rate=1e-2, beta=1.0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    trainer = dpo_trainer(model, tokenizer, settings, train=pairs(), callbacks=callbacks)
    start = {n: p.clone() for n, p in model.named_parameters() if "ref" in n.split(".")}
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)
    assert callbacks[0].ranks() == 140
    assert start
    assert all(torch.equal(start[n], p) for n, p in model.named_parameters() if n in start)


def test_too_few_steps_are_refused(base, tmp_path):
    trainer, _ = sft(base, tmp_path, max_steps=15)
    with pytest.raises(TrainingError, match="tinit 5 and tfinal 10 leave none of the run's 15 steps to prune in"):
        trainer.train()


def test_a_skipped_step_moves_nothing(base, tmp_path):
    _, pruning = sft(base, tmp_path)
    assert isinstance(pruning, Pruning)
    before = copy.deepcopy(pruning.tensors())
    for parameter in pruning.trained:
        parameter.grad = None
    pruning.on_pre_optimizer_step(None, None, None)
    assert all(parameter.grad is None for parameter in pruning.trained)
    assert pruning.tensors().keys() == before.keys()


def test_ppo_prunes_and_resumes(base, tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 4}
    # 3 updates of 4 optimizer steps
    more = {"peft_method": "adalora", "peft_config": {**SCHEDULE, "tinit": 1, "tfinal": 2}, "arguments": saving}

    def make():
        trainer = ppo_trainer(base, tmp_path / "ppo", **more)
        callbacks = method_callbacks(trainer.recipe, trainer.roles)
        for callback in callbacks:
            trainer.add_callback(callback)
        return trainer, callbacks[0]

    straight, pruning = make()
    straight.train()
    assert straight.state.log_history[0]["kl"] == 0.0
    assert pruning.ranks() == 140
    after = {name: tensor.clone() for name, tensor in trained_weights(straight).items()}
    resumed, pruning = make()
    resumed.train(resume_from_checkpoint=str(tmp_path / "ppo" / "checkpoint-4"))
    assert pruning.ranks() == 140
    assert all(torch.equal(tensor, after[name]) for name, tensor in trained_weights(resumed).items())
