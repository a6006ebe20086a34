"""Each fact about a type of PEFT is tried, and every type that PEFT registers has a line."""

import json

import pytest
import torch
from peft import PeftModel
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from alignment.config.methods import TUNING_METHODS
from alignment.config.peft_types import GENERIC, REFUSED
from alignment.config.schema import ModelKeys
from alignment.errors import ModelError
from alignment.policy.adapters import expected_warnings
from alignment.policy.base import load_base, load_causal_lm, load_sequence_classifier
from alignment.policy.methods import family, is_of_adapter
from tests.tuned import IDS, Keys, apart, keys, logits, save_base, trained, with_adapter

START_AT_RANDOM = ("unilora", "vblora")  # a little beside the base: PEFT has no other start for them


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("models") / "base")


def test_every_type_that_peft_registers_has_a_line():
    ours = {family(name).PEFT_TYPE.lower() for name in TUNING_METHODS if family(name) is not None}
    registered = {kind.value.lower() for kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    assert registered - ours - set(REFUSED) == set()
    assert not ours & set(REFUSED)


def test_a_type_of_our_own_is_an_attribute_of_the_enumeration():
    own = [family(name).PEFT_TYPE for name in TUNING_METHODS if TUNING_METHODS[name].own_type]
    assert own
    for kind in own:  # Python 3.12 looks for members among the attributes alone
        assert vars(type(kind))[kind.value] is kind is type(kind)[kind.value]


@pytest.mark.parametrize("name", GENERIC)
def test_a_new_adapter_is_the_base_and_training_moves_it_alone(base, name, tmp_path):
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = with_adapter(base, name)
    assert apart(logits(model), logits(plain)) < (0.1 if name in START_AT_RANDOM else 1e-4)
    before = {key: weight.clone() for key, weight in model.named_parameters() if not is_of_adapter(key)}
    trained(model)
    assert apart(logits(model), logits(plain)) > 1e-4
    assert all(torch.equal(weight, dict(model.named_parameters())[key]) for key, weight in before.items())
    trainable = [key for key, weight in model.named_parameters() if weight.requires_grad]
    assert trainable
    assert all(is_of_adapter(key) and ".default" in key for key in trainable)
    with model.disable_adapter():
        assert apart(logits(model), logits(plain)) < 1e-5
    model.save_pretrained(tmp_path / name)
    again = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with expected_warnings():
        again = PeftModel.from_pretrained(again, tmp_path / name)
    assert apart(logits(again), logits(model)) == 0


@pytest.mark.parametrize("name", GENERIC)
def test_ours_continues_what_was_saved(base, name, tmp_path):
    model = trained(with_adapter(base, name))
    model.save_pretrained(tmp_path / name)
    given = keys(str(tmp_path / name), name)
    again = load_causal_lm(given, trainable=True, peft=given)
    assert apart(logits(again), logits(model)) == 0
    trains = [{key for key, weight in each.named_parameters() if weight.requires_grad} for each in (model, again)]
    assert trains[0] == trains[1]


@pytest.mark.parametrize("name", GENERIC)
def test_a_reward_model_trains_its_head_beside_it(base, name):
    model = with_adapter(base, name, load_sequence_classifier)
    names = {key for key, weight in model.named_parameters() if weight.requires_grad}
    assert any(".score." in key for key in names)
    assert any(is_of_adapter(key) for key in names)


@pytest.mark.parametrize("name", GENERIC)
def test_it_merges_or_its_entry_denies_it(base, name):
    model = trained(with_adapter(base, name))
    expected = logits(model)
    if GENERIC[name].merges:
        assert apart(logits(model.merge_and_unload(safe_merge=True)), expected) < 1e-3
    else:
        with pytest.raises((ValueError, NotImplementedError, AttributeError)):
            model.merge_and_unload(safe_merge=True)


@pytest.mark.parametrize("name", GENERIC)
def test_it_trains_on_a_base_in_4_bits_or_is_refused(base, name):
    if not GENERIC[name].allows_4bit:
        with pytest.raises(ModelError, match=r"load_in_4bit .*set peft_method to lora, dora"):
            with_adapter(base, name, load_in_4bit=True)
        return
    model = with_adapter(base, name, load_in_4bit=True)
    start = logits(model)
    assert apart(logits(trained(model)), start) > 1e-4


@pytest.mark.parametrize("name", [name for name in GENERIC if not GENERIC[name].allows_4bit and name != "randlora"])
def test_types_refused_in_4_bits_fail_in_4_bits(base, name):
    given = keys(base, "lora", load_in_4bit=True)
    config = family(name).new_config(keys(base, name), task="CAUSAL_LM", modules_to_save=None)
    model = load_causal_lm(given, trainable=False).requires_grad_(False)
    start = logits(model)
    try:
        moved = apart(logits(trained(PeftModel(model, config))), start)
    except (RuntimeError, ValueError, TypeError, AttributeError):
        return
    assert moved < 0.01  # it runs, and learns nothing


@pytest.fixture(scope="module")
def dequantised(base, tmp_path_factory):
    """A model in floats whose weights are those of the base in 8 bits."""
    folder = tmp_path_factory.mktemp("models") / "dequantised"
    load_base(AutoModelForCausalLM, base, keys(base, "lora", load_in_8bit=True)).dequantize().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", [name for name in GENERIC if GENERIC[name].allows_8bit])
def test_in_8_bits_it_computes_and_learns_as_on_the_dequantised_weights(base, dequantised, name, tmp_path):
    model = with_adapter(base, name, load_in_8bit=True)
    start = logits(model)
    assert apart(logits(trained(model, steps=1)), start) > 1e-5
    model.save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(dequantised, dtype=torch.float32)
    with expected_warnings():
        plain = PeftModel.from_pretrained(plain, tmp_path, is_trainable=True)
    assert apart(logits(model), logits(plain)) < 1e-4
    ours, theirs = gradients(model), gradients(plain)
    assert ours.keys() == theirs.keys()
    assert all(apart(ours[key], theirs[key]) <= 1e-4 * max(1.0, theirs[key].abs().max()) for key in ours)


def gradients(model):
    model.train().zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    return {key: weight.grad for key, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("name", [name for name in GENERIC if not GENERIC[name].allows_8bit and name != "randlora"])
def test_types_refused_in_8_bits_fail_in_8_bits(base, dequantised, name, tmp_path):
    with pytest.raises(ModelError, match=r"load_in_8bit .*set peft_method to lora, dora"):
        with_adapter(base, name, load_in_8bit=True)
    config = family(name).new_config(keys(base, name), task="CAUSAL_LM", modules_to_save=None)
    model = load_causal_lm(keys(base, "lora", load_in_8bit=True), trainable=False).requires_grad_(False)
    start = logits(model)
    try:
        model = trained(PeftModel(model, config))
    except (RuntimeError, ValueError, TypeError, AttributeError):
        return
    model.save_pretrained(tmp_path)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(dequantised), tmp_path)
    found = logits(model)
    assert apart(found, start) < 0.01 or apart(found, logits(plain)) > 1  # it learns nothing, or takes other weights


@pytest.mark.parametrize("bits", [4, 8])
def test_a_second_adapter_of_randlora_wraps_the_first_on_a_quantised_base(base, bits):
    """DPO's reference is a second adapter, which has to be beside the policy's."""
    config = family("randlora").new_config(keys(base, "randlora"), task="CAUSAL_LM", modules_to_save=None)
    held = load_causal_lm(keys(base, "lora", **{f"load_in_{bits}bit": True}), trainable=False)
    model = PeftModel(held, config)
    model.add_adapter("ref", config)
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    assert not any(name.replace(".ref", ".default") in names for name in names if "randlora_lambda.ref" in name)


def test_indices_outside_the_weights_are_refused(base, tmp_path):
    model = with_adapter(base, "shira")
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "shira_indices" in name)
    tensors[name] = tensors[name].clone()
    tensors[name][0, 0] = 10**6
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"names weights that .* does not have: its shira_indices lie outside"):
        load_causal_lm(ModelKeys(model_name_or_path=str(tmp_path)), trainable=False)


def test_indices_inside_the_weights_are_taken_beside_a_base_in_4_bits(base, tmp_path):
    model = trained(with_adapter(base, "shira", load_in_4bit=True))
    model.save_pretrained(tmp_path)
    given = keys(str(tmp_path), "shira", load_in_4bit=True)
    again = load_causal_lm(given, trainable=True, peft=given)
    assert apart(logits(again), logits(model)) == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target_modules", "(.+)+!"),
        ("target_modules", 3),
        ("feedforward_modules", ["(.*)*"]),
        ("lora_alpha", 3),
        ("modules_to_save", ["../x/y"]),
        ("init_ia3_weights", "/etc/passwd"),
        ("fan_in_fan_out", 3),
        ("revision", ["a"]),
        ("megatron_core", "canary"),
    ],
)
def test_a_saved_configuration_decides_nothing(base, tmp_path, key, value):
    with_adapter(base, "ia3").save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(ModelError, match=rf"{key}|pattern"):
        load_causal_lm(ModelKeys(model_name_or_path=str(tmp_path)), trainable=False)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("loha", "r", 10**9), ("loha", "rank_pattern", {"q_proj": 10**9}), ("vblora", "num_vectors", 10**9),
     ("peanut", "act_fn", "os.system('x')"), ("shira", "mask_type", "elsewhere"), ("loha", "rank_pattern", {"a": []})],
)  # fmt: skip
def test_sizes_and_texts_of_a_saved_configuration_are_bounded(base, tmp_path, name, key, value):
    with_adapter(base, name).save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(ModelError, match=rf"adapter_config\.json: .*{key} is "):
        load_causal_lm(ModelKeys(model_name_or_path=str(tmp_path)), trainable=False)


def test_a_field_that_a_continued_adapter_contradicts_is_refused(base, tmp_path):
    with_adapter(base, "miss").save_pretrained(tmp_path)
    given = Keys(model_name_or_path=str(tmp_path), peft_method="miss", peft_config={"r": 4})
    with pytest.raises(ModelError, match=r"keeps its shape, but r is 64 in the adapter, 4 in the recipe's peft_config"):
        load_causal_lm(given, trainable=True, peft=given)
    given = Keys(model_name_or_path=str(tmp_path), peft_method="vera")
    with pytest.raises(ModelError, match="peft_method is miss in the adapter, vera in the recipe"):
        load_causal_lm(given, trainable=True, peft=given)
