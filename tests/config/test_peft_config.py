"""The keys of `peft_config`: those of the method's configuration, with their types, each given in one place."""

import dataclasses
import importlib
import json
import subprocess
import sys

import pytest

from alignment.config import load_recipe
from alignment.config.library import trainer_keys
from alignment.config.methods import TUNING_METHODS
from alignment.errors import RecipeError


def load(tmp_path, **keys):
    given = {"stage": "sft", "model_name_or_path": "m", "output_dir": "o", "datasets": [{"path": "d"}], **keys}
    file = tmp_path / "r.yaml"
    file.write_text(json.dumps(given))
    return load_recipe(given["stage"], ["--config", str(file)])


def faults(tmp_path, **keys):
    with pytest.raises(RecipeError) as error:
        load(tmp_path, **keys)
    assert error.value.exit_code == 2
    return [fault.partition(": ")[2] for fault in error.value.faults]


@pytest.mark.parametrize(
    ("method", "config", "message"),
    [
        ("ia3", {"target_modles": ["a"]}, "target_modles: is not a field of IA3Config, the configuration of ia3; did "
         "you mean target_modules?"),
        ("ia3", {"r": 3}, "r: is not a field of IA3Config, the configuration of ia3; it belongs to lora, dora"),
        ("ia3", {"target_modules": 3}, "target_modules: must be text or a list of text or null, found 3"),
        ("ia3", {"task_type": "CAUSAL_LM"}, "task_type: cannot be set: it follows from the stage"),
        ("lora", {"lora_r": 3}, "lora_r: is not a field of LoraConfig; write r, or lora_r beside peft_config"),
        ("lora", {"r": 0}, "r: must be from 1 to 65536, found 0"),
        ("lora", {"r": 2.5}, "r: must be a whole number, found 2.5"),
        ("lora", {"use_dora": True}, "use_dora: cannot be set: it is peft_method: dora"),
        ("lora", {"rank_pattern": {"q_proj": 0}}, "rank_pattern: q_proj: must be from 1 to 65536, found 0"),
        ("lora", {"rank_pattern": {"q_proj": "a"}}, "rank_pattern: must hold whole numbers by modules' names, found "
         "'q_proj': 'a'"),
        ("lora", {"init_lora_weights": "eva", "eva_config": {"rhoo": 1}}, "eva_config: rhoo is not a field of EvaConfig"
         "; did you mean rho?"),
        ("lora", {"eva_config": {"rho": 1.0}}, "eva_config: has no effect without init_lora_weights: eva"),
        ("lora", {"layers_to_transform": [-1]}, "layers_to_transform: must name layers from 0 on, found -1"),
        ("lora", {"layers_to_transform": []}, "layers_to_transform: names no layer; name one"),
        ("lora", {"target_modules": []}, "target_modules: names no module; name some, or leave it out"),
        ("lora", {"init_lora_weights": "loftq"}, "init_lora_weights: must be true, gaussian, orthogonal, eva, "),
        ("lora", {"corda_config": {"cache_file": "f"}}, "corda_config: cannot be set: it names files or modules"),
        ("lora", {"bias": "all"}, "bias: cannot be set: PEFT keeps it outside the adapter"),
        ("miss", {"init_weights": False}, "init_weights: cannot be set: false starts from a random function"),
        ("miss", {"init_weights": "batt"}, "init_weights: must be one of bat, mini, or true or false, found 'batt'; "
         "did you mean bat?"),
        ("lora", {"lora_alpha": 0}, "lora_alpha: must be 1 or more, found 0"),
        ("lora", {"alpha_pattern": {"q_proj": 0}}, "alpha_pattern: q_proj: must not be 0"),
        ("lora", {"target_modules": [""]}, "target_modules: names no module; name some, or leave it out"),
        ("lora", {"target_modules": ""}, "target_modules: names no module; name some, or leave it out"),
        ("adalora", {"deltaT": 0}, "deltaT: must be 1 or more, found 0"),
        ("adalora", {"tinit": -5}, "tinit: must be 0 or more, found -5"),
        ("adalora", {"beta1": 1.0}, "beta1: must be more than 0 and less than 1, found 1.0"),
        ("adalora", {"orth_reg_weight": -0.5}, "orth_reg_weight: must be 0 or more, found -0.5"),
        ("adalora", {"init_r": 4, "target_r": 6}, "target_r: 6 is more than init_r 4, and ranks only fall; give less"),
        ("p_tuning", {"encoder_num_layers": 0}, "encoder_num_layers: must be 1 or more, found 0"),
        ("prefix_tuning", {"encoder_hidden_size": -3}, "encoder_hidden_size: must be from 1 to 65536, found -3"),
        ("oft", {"oft_block_size": -4}, "oft_block_size: must be 0 or more, found -4"),
        ("vblora", {"topk": 0}, "topk: must be 1 or more, found 0"),
        ("freeze", {"trainable_layers": []}, "trainable_layers: names no layer; name one"),
        ("freeze", {"trainable_layers": [""]}, "trainable_layers: names no layer; name one"),
        ("full", {"r": 1}, "r: has no effect with peft_method full; take it out"),
    ],
)  # fmt: skip
def test_an_impossible_field_is_reported(tmp_path, method, config, message):
    (found,) = faults(tmp_path, peft_method=method, peft_config=config)
    assert found.startswith(f"peft_config.{message}")


@pytest.mark.parametrize("steps", [{"max_steps": 15}, {"max_steps": 14}])
def test_an_adalora_that_would_never_prune_is_reported(tmp_path, steps):
    schedule = {"peft_method": "adalora", "peft_config": {"tinit": 5, "tfinal": 10}}
    expected = f"peft_config: tinit 5 and tfinal 10 leave none of the run's {steps['max_steps']} steps to prune in; "
    (found,) = faults(tmp_path, **schedule, **steps)
    assert found.startswith(expected)
    load(tmp_path, **schedule, max_steps=16)
    load(tmp_path, **schedule)  # the data decides


@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("freeze", {"trainable_layers": -2}),
        ("oft", {"r": 4, "oft_block_size": 0}),
        ("fourierft", {"random_loc_seed": 0}),
        ("lokr", {"decompose_factor": -1}),
        ("adalora", {"tinit": 0, "orth_reg_weight": 0}),
    ],
)
def test_zeros_and_negative_numbers_that_have_a_meaning_are_accepted(tmp_path, method, config):
    load(tmp_path, peft_method=method, peft_config=config)


def test_the_steps_of_ppo_are_those_of_its_updates(tmp_path):
    # 32 / 8 updates of 2 passes and 2 minibatches: 16 steps
    shape = {"total_episodes": 32, "rollout_batch_size": 8, "num_ppo_epochs": 2, "num_mini_batches": 2}
    given = {"stage": "ppo", "peft_method": "adalora", "reward_model_path": "r", "per_device_train_batch_size": 4}
    (found,) = faults(tmp_path, **given, **shape, peft_config={"tinit": 6, "tfinal": 10})
    assert "leave none of the run's 16 steps to prune in" in found
    load(tmp_path, **given, **shape, peft_config={"tinit": 5, "tfinal": 10})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lorra", "peft_method: 'lorra' is not a tuning method; did you mean lora?"),
        ("LORA", "peft_method: 'LORA' is not a tuning method; did you mean lora?"),
        ("poly", "peft_method: poly cannot be used: it needs a task's number in every row; use lora"),
        ("z", "peft_method: 'z' is not a tuning method; docs/tuning.md lists the methods"),
    ],
)
def test_an_unknown_method_is_reported(tmp_path, name, message):
    assert faults(tmp_path, peft_method=name) == [message]


def test_a_field_is_given_in_one_place(tmp_path):
    assert faults(tmp_path, lora_r=8, peft_config={"r": 4}) == ["peft_config.r: is also given as lora_r; give one"]
    assert faults(tmp_path, peft_method="miss", lora_target_modules=["q_proj"]) == [
        "lora_target_modules: has no effect with peft_method miss; write peft_config: {target_modules: ...}"
    ]


def test_the_fields_of_both_places_come_together(tmp_path):
    recipe = load(tmp_path, lora_r=8, peft_config={"layers_to_transform": [0], "rank_pattern": {"q_proj": 2}})
    fields = recipe.fields()
    assert (fields["r"], fields["layers_to_transform"], fields["rank_pattern"]) == (8, [0], {"q_proj": 2})
    assert load(tmp_path, peft_method="miss", peft_config={"r": 4}).fields() == {"target_modules": "all-linear", "r": 4}


def test_dropout_is_refused_where_passes_are_compared(tmp_path):
    given = {"stage": "dpo", "model_name_or_path": "m", "output_dir": "o", "datasets": [{"path": "d"}]}
    file = tmp_path / "r.yaml"
    file.write_text(json.dumps(given | {"peft_method": "vera", "peft_config": {"vera_dropout": 0.1}}))
    with pytest.raises(RecipeError, match=r"peft_config\.vera_dropout: must be 0 in DPO: with dropout"):
        load_recipe("dpo", ["--config", str(file)])


SPECS = sorted({method.config for method in TUNING_METHODS.values() if method.config.startswith("peft.")})


@pytest.mark.parametrize("spec", SPECS)
def test_the_fields_are_those_of_the_imported_class(spec):
    module, _, name = spec.partition(":")
    fields = dataclasses.fields(getattr(importlib.import_module(module), name))
    keys = trainer_keys(spec)
    assert set(keys) == {field.name for field in fields if field.init}
    for field in fields:
        if field.init and field.default not in (dataclasses.MISSING, None):
            assert keys[field.name].accepts(getattr(field.default, "value", field.default)), field.name


def test_reading_the_fields_imports_no_torch():
    code = (
        "import sys\n"
        "from alignment.config.library import trainer_keys\n"
        f"for spec in {SPECS}: trainer_keys(spec)\n"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"peft_method": "freeze"}, "lora_layers: has no effect with peft_method freeze; write peft_config: "
         "{trainable_layers: 3}"),
        ({"peft_method": "full"}, "lora_layers: has no effect with peft_method full, which is not placed by layer; "
         "take it out"),
        ({"peft_method": "prompt_tuning"}, "lora_layers: has no effect with peft_method prompt_tuning, which is not "
         "placed by layer; take it out"),
        ({"peft_method": "ia3"}, "lora_layers: has no effect with peft_method ia3, which is not placed by layer; name "
         "modules in peft_config: target_modules"),
        ({"peft_config": {"layers_to_transform": [1]}}, "lora_layers: chooses layers, and peft_config: "
         "layers_to_transform does too; give one"),
    ],
)  # fmt: skip
def test_lora_layers_belongs_to_methods_that_are_placed_by_layer(tmp_path, keys, message):
    assert faults(tmp_path, lora_layers=3, **keys) == [message]


@pytest.mark.parametrize("method", ["lora", "dora", "adalora", "dylora", "oft", "vera", "miss"])
def test_lora_layers_is_accepted(tmp_path, method):
    assert load(tmp_path, lora_layers=3, peft_method=method).lora_layers == 3
