"""The trainers' keys read from source agree with the classes themselves."""

import dataclasses
import importlib
import subprocess
import sys

import pytest

from alignment.config.library import Kind, trainer_keys
from alignment.config.schema import STAGES
from alignment.errors import RecipeError

SPECS = sorted({cls.TRAINER_CONFIG for cls in STAGES.values() if cls.TRAINER_CONFIG})


@pytest.mark.parametrize("spec", SPECS)
def test_keys_are_those_of_the_imported_class(spec):
    module, _, name = spec.partition(":")
    fields = dataclasses.fields(getattr(importlib.import_module(module), name))
    expected = {field.name for field in fields if field.init and not field.name.startswith("_")}
    assert set(trainer_keys(spec)) == expected


@pytest.mark.parametrize("spec", SPECS)
def test_every_default_of_the_library_is_accepted(spec):
    module, _, name = spec.partition(":")
    keys = trainer_keys(spec)
    for field in dataclasses.fields(getattr(importlib.import_module(module), name)):
        # Some fields default to None though their type does not say so; giving None in a recipe is giving nothing.
        if field.name in keys and field.default not in (dataclasses.MISSING, None):
            value = getattr(field.default, "value", field.default)
            assert keys[field.name].accepts(value), f"{field.name}: {value!r} is no {keys[field.name]}"


def test_choices_are_the_enumerations_values():
    from transformers.trainer_utils import SaveStrategy, SchedulerType
    from transformers.training_args import OptimizerNames

    keys = trainer_keys("trl.trainer.sft_config:SFTConfig")
    assert set(keys["lr_scheduler_type"].choices) == {entry.value for entry in SchedulerType}
    assert set(keys["save_strategy"].choices) == {entry.value for entry in SaveStrategy}
    assert set(keys["optim"].choices) == {entry.value for entry in OptimizerNames}
    assert "group_by_length" in keys["train_sampling_strategy"].choices


def test_reading_is_quick_and_imports_no_torch():
    # 0.05 s of processor time where an import of trl takes seconds; the bound leaves room for slow machines.
    code = (
        "import sys, time\n"
        "from alignment.config.library import trainer_keys\n"
        "start = time.process_time()\n"
        f"for spec in {SPECS}: trainer_keys(spec)\n"
        "assert not {'torch', 'transformers', 'trl'} & set(sys.modules)\n"
        "print(time.process_time() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.3


def test_kinds_accept_what_python_would():
    number, whole = Kind(frozenset({"float"})), Kind(frozenset({"int"}))
    assert number.accepts(1)
    assert not whole.accepts(1.0)
    assert not whole.accepts(True)
    assert not number.accepts("5e-5")
    texts = Kind(frozenset({"none"}), items=Kind(frozenset({"str"})))
    assert texts.accepts(["a"])
    assert texts.accepts(None)
    assert not texts.accepts(["a", 1])
    assert not texts.accepts("a")
    assert str(texts) == "a list of text or null"


def test_absent_packages_and_classes_are_named():
    with pytest.raises(RecipeError, match="the package no_such_package is not installed"):
        trainer_keys("no_such_package.module:Class")
    with pytest.raises(RecipeError, match="the installed trl has no such class"):
        trainer_keys("trl.trainer.sft_config:Nothing")
