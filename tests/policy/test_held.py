"""What a later load takes from a run's record of its recipe, and what it leaves."""

import json

import pytest

from alignment.errors import AlignmentError, ModelError
from alignment.policy.held import held_as_trained


def recorded(folder, **recipe):
    (folder / "manifest.json").write_text(json.dumps({"recipe": recipe}))
    return folder


def test_precision_quantisation_revision_and_stop_token_are_kept(tmp_path):
    kept = {
        "dtype": "bfloat16",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": "fp4",
        "use_bnb_nested_quant": False,
        "eos_token": "<|im_end|>",
        "model_revision": "refs/pr/3",
    }
    assert held_as_trained(recorded(tmp_path, **kept, lora_r=4, seed=1)) == kept


def test_code_kernels_and_files_are_never_taken_from_a_folder(tmp_path):
    asked = {
        "trust_remote_code": True,
        "attn_implementation": "owner/kernel",
        "chat_template": "/etc/passwd",
        "model_name_or_path": "/elsewhere",
    }
    assert held_as_trained(recorded(tmp_path, **asked)) == {}


def test_the_recipe_is_used_without_a_manifest(tmp_path):
    (tmp_path / "recipe.yaml").write_text("load_in_4bit: true\ntrust_remote_code: true\n")
    assert held_as_trained(tmp_path) == {"load_in_4bit": True}
    recorded(tmp_path, load_in_4bit=False)
    assert held_as_trained(tmp_path) == {"load_in_4bit": False}


def test_a_folder_without_a_record_and_a_hub_id_hold_nothing(tmp_path):
    assert held_as_trained(tmp_path) == {}
    assert held_as_trained("owner/model") == {}


@pytest.mark.parametrize(
    "recipe",
    [
        {"dtype": "uint8"},
        {"dtype": ["float32"]},
        {"load_in_4bit": "yes"},
        {"load_in_8bit": 8},
        {"bnb_4bit_quant_type": 4},
        {"use_bnb_nested_quant": 1},
        {"eos_token": 3},
        {"eos_token": "x" * 1000},
        {"model_revision": "main; rm"},
    ],
    ids=lambda recipe: next(iter(recipe)),
)
def test_a_value_that_no_run_records_is_refused(tmp_path, recipe):
    with pytest.raises(ModelError, match=rf"{next(iter(recipe))} is .*put the run's own file back"):
        held_as_trained(recorded(tmp_path, **recipe))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"recipe": 1' + "0" * 5000 + "}", "\xff"])
def test_a_damaged_record_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(AlignmentError, match=r"manifest\.json"):
        held_as_trained(tmp_path)


def test_a_recipe_of_another_kind_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text('{"recipe": ["trust_remote_code"]}')
    with pytest.raises(AlignmentError, match=r"recipe is .* and must be an object"):
        held_as_trained(tmp_path)
