"""When a trainer that is told to end saves: after the step, or after what belongs to an epoch's end."""

import os
import signal

import pytest
import torch
from transformers import TrainerControl, TrainerState

from alignment.run import signals
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


@pytest.mark.parametrize("epoch", [1.4, 2.0])
def test_one_checkpoint_is_saved_and_an_epochs_end_is_that_alone(told, epoch):
    control, state = TrainerControl(), TrainerState(epoch=epoch, global_step=7)
    told.on_step_end(Arguments, state, control)
    assert control.should_training_stop
    after_step = control.should_save
    control.should_save = False  # as once it is saved
    control.should_evaluate = control.should_log = True  # by the strategy "epoch", also of an epoch that was cut short
    state.epoch = 0.25  # PPO counts epochs its own way
    told.on_epoch_end(Arguments, state, control)
    assert [after_step, control.should_save] == ([True, False] if epoch == 1.4 else [False, True])
    assert control.should_evaluate == control.should_log == (epoch == 2.0)
    with pytest.raises(signals.Terminated) as ended:
        told.on_train_end(Arguments, state, control)
    assert ended.value.code == signals.PREEMPTED == 143
    assert str(ended.value) == "ended by SIGUSR1; the same command goes on from checkpoint-7"


def test_a_trainer_that_is_not_told_goes_on():
    callback, control, state = StopOnSignal(), TrainerControl(), TrainerState(epoch=1.4)
    callback.on_train_begin(Arguments, state, control)
    callback.on_step_end(Arguments, state, control)
    control.should_save = True
    callback.on_epoch_end(Arguments, state, control)
    assert control.should_save
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
