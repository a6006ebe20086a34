"""When a trainer that is told to end saves: once, and what an epoch's end does in its last step."""

import os
import signal

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from alignment.run import signals
from alignment.run.callbacks import WithinTheStep
from alignment.run.preemption import StopOnSignal


class Arguments:
    device = torch.device("cpu")


@pytest.fixture
def told(monkeypatch):
    callback = StopOnSignal()
    callback.on_train_begin(Arguments, TrainerState(), TrainerControl())
    monkeypatch.setattr(signals._Asked, "number", signal.SIGUSR1)
    yield callback
    signals.defer_no_more()


@pytest.mark.parametrize("saves_by_itself", [True, False])
def test_one_checkpoint_is_saved_of_the_step(told, saves_by_itself):
    control, state = TrainerControl(should_save=saves_by_itself), TrainerState(epoch=1.4, global_step=7)
    told.on_step_end(Arguments, state, control)
    assert control.should_training_stop
    if control.should_save:
        control.should_save = False  # as the Trainer's handler has it
        told.on_save(Arguments, state, control)
    told.on_epoch_end(Arguments, state, control)
    assert control.should_save != saves_by_itself
    if control.should_save:
        told.on_save(Arguments, state, control)
    with pytest.raises(signals.Terminated) as ended:
        told.on_train_end(Arguments, state, control)
    assert ended.value.code == signals.PREEMPTED == 143
    assert str(ended.value) == "ended by SIGUSR1; the same command resumes from checkpoint-7"


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
@pytest.mark.parametrize(("epoch", "step"), [(1.4, 7), (2.0, 7), (1.4, 9)])
def test_an_epochs_end_is_dealt_with_in_its_last_step(strategy, epoch, step):
    arguments = TrainingArguments(
        eval_strategy=strategy, save_strategy=strategy, logging_strategy=strategy, eval_steps=1, use_cpu=True
    )
    control, state = TrainerControl(), TrainerState(epoch=epoch, global_step=step, max_steps=9)
    WithinTheStep().on_step_end(arguments, state, control)
    asked = strategy == "epoch" and (epoch == 2.0 or step == 9)
    assert [control.should_log, control.should_evaluate, control.should_save] == [asked] * 3
    control = TrainerControl(should_log=True, should_evaluate=True, should_save=True)
    WithinTheStep().on_epoch_end(arguments, state, control)
    assert not any((control.should_log, control.should_evaluate, control.should_save))


def test_a_signal_that_comes_while_the_last_step_is_saved_ends_the_process(told, monkeypatch):
    monkeypatch.setattr(signals._Asked, "number", None)
    control, state = TrainerControl(), TrainerState(epoch=2.0, global_step=9, max_steps=9)
    told.on_step_end(Arguments, state, control)
    told.on_save(Arguments, state, control)
    told.on_epoch_end(Arguments, state, control)
    assert not control.should_training_stop
    monkeypatch.setattr(signals._Asked, "number", signal.SIGTERM)
    with pytest.raises(signals.Terminated, match="SIGTERM; the same command resumes from checkpoint-9"):
        told.on_train_end(Arguments, state, control)


def test_a_trainer_without_a_signal_continues():
    callback, control, state = StopOnSignal(), TrainerControl(), TrainerState(epoch=1.4)
    callback.on_train_begin(Arguments, state, control)
    callback.on_step_end(Arguments, state, control)
    callback.on_epoch_end(Arguments, state, control)
    assert not control.should_save
    assert not control.should_training_stop
    callback.on_train_end(Arguments, state, control)


def test_a_signal_ends_at_once_unless_the_end_is_deferred():
    before = signals.end_on_signals()
    try:
        with pytest.raises(signals.Terminated, match="ended by SIGTERM"):
            signal.raise_signal(signal.SIGTERM)
        signals.defer()
        assert signals.asked() is None
        signal.raise_signal(signal.SIGUSR1)
        assert signals.asked() == signal.SIGUSR1
        signals.defer_no_more()
        with pytest.raises(signals.Terminated):
            signal.raise_signal(signal.SIGUSR1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_terminal_that_closes_ends_a_pipeline_but_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with pytest.raises(signals.Terminated), signals.ending_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with signals.ending_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
