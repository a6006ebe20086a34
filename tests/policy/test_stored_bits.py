"""Models that are stored in 4 or 8 bits: files that do not hold what their configuration states are refused."""

import json
import shutil

import pytest
import torch
from bitsandbytes.utils import pack_dict_to_tensor, unpack_tensor_to_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from alignment.config.schema import ModelKeys
from alignment.errors import ModelError
from alignment.policy.base import load_causal_lm, require_loadable
from tests.models import save_tiny_model

WEIGHTS = "model.safetensors"
LAYER = "model.layers.1.mlp.up_proj"  # 128 × 64
STATE = f"{LAYER}.weight.quant_state.bitsandbytes__nf4"
BITS = {0: {}, 4: {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, 8: {"load_in_8bit": True}}
NESTED = {**BITS[4], "bnb_4bit_use_double_quant": True}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One model as it is, in 4 bits, in 4 bits with nested constants, and in 8."""
    folder = tmp_path_factory.mktemp("stored")
    save_tiny_model(folder / "whole", hidden_size=64)
    for name, how in (("4", BITS[4]), ("nested", NESTED), ("8", BITS[8])):
        config = BitsAndBytesConfig(**how)
        AutoModelForCausalLM.from_pretrained(folder / "whole", quantization_config=config).save_pretrained(
            folder / name
        )
    return folder


def changed(source, folder, *, tensors=None, config=None):
    shutil.copytree(source, folder)
    if tensors is not None:
        held = load_file(folder / WEIGHTS)
        tensors(held)
        save_file(held, folder / WEIGHTS, metadata={"format": "pt"})
    if config is not None:
        described = json.loads((folder / "config.json").read_text())
        described.update(config(described))
        (folder / "config.json").write_text(json.dumps(described))
    return ModelKeys(model_name_or_path=str(folder))


@pytest.mark.parametrize("name", ["4", "nested", "8"])
def test_whole_files_load(folders, name):
    keys = ModelKeys(model_name_or_path=str(folders / name))
    require_loadable(keys, trainable=False, peft=None)
    assert torch.isfinite(load_causal_lm(keys, trainable=False)(torch.arange(3, 30)[None]).logits).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_in_floating_point_are_not_read_as_quantised_ones(folders, tmp_path, bits):
    config = {"quantization_config": {"quant_method": "bitsandbytes", **BITS[bits]}}
    keys = changed(folders / "whole", tmp_path / "model", config=lambda _: config)
    with pytest.raises(ModelError, match=f"a quantization_config of {bits} bits, but the weights are stored without"):
        require_loadable(keys, trainable=False, peft=None)


def _with(name, value):
    return lambda held: held.update({f"{LAYER}{name}": value(held[f"{LAYER}{name}"])})


IN_FILES = {
    "a weight without constants": (lambda held: held.pop(f"{LAYER}.SCB"), r"up_proj.weight without its constants"),
    "floats beside constants": (_with(".weight", lambda own: own.float() / 127), r"up_proj.weight in floating point"),
    "the order of a GPU": (_with(".weight_format", lambda own: own + 2), r"up_proj.weight_format as another order"),
}


@pytest.mark.parametrize("fault", IN_FILES)
def test_files_are_refused_before_they_load(folders, tmp_path, fault):
    change, message = IN_FILES[fault]
    keys = changed(folders / "8", tmp_path / "model", tensors=change)
    with pytest.raises(ModelError, match=message):
        require_loadable(keys, trainable=False, peft=None)


def _state(**changes):
    return lambda held: held.update({STATE: pack_dict_to_tensor(unpack_tensor_to_dict(held[STATE]) | changes)})


LOADED = {
    "one constant for all rows": ("8", _with(".SCB", lambda own: own[:1].clone()), r"shape \(1,\) and torch.float32"),
    "a table of constants": ("8", _with(".SCB", lambda own: own[None].clone()), r"shape \(1, 128\)"),
    "integers as constants": ("8", _with(".SCB", lambda own: own.int()), r"torch.int32 for 128 rows"),
    "NaN": ("8", _with(".SCB", lambda own: own * float("nan")), "no finite numbers"),
    "a larger shape": ("4", _state(shape=[1280, 640]), r"4096 bytes of shape \(1280, 640\) for \(128, 64\)"),
    "too few constants": ("4", _with(".weight.absmax", lambda own: own[:5].clone()), "5 constants of 64 numbers each"),
    "larger blocks": ("4", _state(blocksize=4096), "128 constants of 4096 numbers each for 8192"),
    "infinity": ("4", _with(".weight.absmax", lambda own: own * float("inf")), "no finite numbers"),
    "few codes": ("4", _with(".weight.quant_map", lambda own: own[:3].clone()), "3 codes"),
    "few nested constants": ("nested", _state(nested_blocksize=16), "1 constants of 16 constants each for 128"),
    "few nested codes": ("nested", _with(".weight.nested_quant_map", lambda own: own[:9].clone()), "uint8 and 9 codes"),
}


@pytest.mark.parametrize("fault", LOADED)
def test_layers_that_would_compute_with_other_numbers_are_refused(folders, tmp_path, fault):
    name, change, message = LOADED[fault]
    keys = changed(folders / name, tmp_path / "model", tensors=change)
    with pytest.raises(ModelError, match=rf"{LAYER}.weight is not stored as bitsandbytes stores weights \(.*{message}"):
        load_causal_lm(keys, trainable=False)


def test_integers_are_not_read_as_weights_where_the_configuration_skips_their_module(folders, tmp_path):
    def skipping(described):
        return {"quantization_config": {**described["quantization_config"], "llm_int8_skip_modules": ["up_proj"]}}

    keys = changed(folders / "8", tmp_path / "model", config=skipping)
    with pytest.raises(ModelError, match=r"up_proj.weight is not stored as .* \(integers, where config.json describes"):
        load_causal_lm(keys, trainable=False)


def test_a_quantised_model_may_not_describe_a_far_larger_one_either(folders, tmp_path):
    larger = {"intermediate_size": 10**7, "quantization_config": {"quant_method": "unknown"}}
    keys = changed(folders / "whole", tmp_path / "model", config=lambda _: larger)
    with pytest.raises(ModelError, match=r"config.json describes 3,\d{3},\d{3},\d{3} numbers .* at most"):
        require_loadable(keys, trainable=False, peft=None)
