"""Freeze: which layers train, and that they are saved, loaded and merged by plain PEFT."""

import pytest
import torch
from peft import LNTuningConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from alignment.errors import ModelError
from alignment.policy.methods.freeze import trained_modules
from tests.models import make_model, make_tokenizer

IDS = torch.arange(3, 40)[None]


def freeze_config(model, layers, **options):
    return LNTuningConfig(target_modules=trained_modules(model, layers), **options)


def model_with(layers, **config):
    model = make_model(make_tokenizer(), **config)
    return get_peft_model(model, freeze_config(model, layers, task_type="CAUSAL_LM"))


def layers_of(names):
    return sorted({name.split(".")[2] for name in names})


def trained(model):
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def test_a_positive_number_counts_from_the_top_a_negative_one_from_the_bottom():
    model = make_model(make_tokenizer(), layers=5)
    assert layers_of(trained_modules(model, 2)) == ["3", "4"]
    assert layers_of(trained_modules(model, -2)) == ["0", "1"]
    assert layers_of(trained_modules(model, 5)) == ["0", "1", "2", "3", "4"]


def test_two_layers_of_stories260k_are_all_their_weights(shared):
    model = AutoModelForCausalLM.from_pretrained(shared / "models" / "stories260K")
    model = get_peft_model(model, freeze_config(model, 2))
    # a layer: q, o 64*64 each, k, v 32*64 each, gate, up, down 172*64 each, two norms of 64: 45,312 + 128
    assert trained(model) == 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 172 * 64 + 128) == 90_880


def test_names_stand_for_all_modules_below_them():
    model = make_model(make_tokenizer())
    assert trained_modules(model, ["layers.1.mlp", "model.norm"]) == [
        "model.layers.1.mlp.gate_proj",
        "model.layers.1.mlp.up_proj",
        "model.layers.1.mlp.down_proj",
        "model.norm",
    ]
    assert trained_modules(model, ["lm_head"]) == ["lm_head"]


def test_trained_layers_equal_full_fine_tuning_of_them_and_load_and_merge_without_a_difference(tmp_path):
    model = model_with(1)
    plain = make_model(make_tokenizer())
    plain.requires_grad_(False)
    plain.model.layers[1].requires_grad_(True)
    for each in (model, plain):
        optimizer = torch.optim.AdamW([p for p in each.parameters() if p.requires_grad], lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            each(IDS, labels=IDS).loss.backward()
            optimizer.step()
    with torch.no_grad():
        expected = plain.eval()(IDS).logits
        assert torch.equal(model.eval()(IDS).logits, expected)
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(make_model(make_tokenizer()), tmp_path).eval()
        assert torch.equal(loaded(IDS).logits, expected)
        with loaded.disable_adapter():
            assert torch.equal(loaded(IDS).logits, make_model(make_tokenizer())(IDS).logits)
        assert torch.equal(loaded.merge_and_unload()(IDS).logits, expected)


def test_layers_train_beside_a_base_in_4_bits_if_they_are_not_quantised(tmp_path):
    plain = make_model(make_tokenizer(), hidden_size=64)
    plain.save_pretrained(tmp_path)
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["lm_head", *trained_modules(plain, 1)],
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=quantised)
    assert torch.equal(model.model.layers[1].mlp.up_proj.weight, plain.model.layers[1].mlp.up_proj.weight)
    assert type(model.model.layers[0].mlp.up_proj.weight).__name__ == "Params4bit"
    model = get_peft_model(model, freeze_config(model, 1))
    model(IDS, labels=IDS).loss.backward()
    assert trained(model) == sum(parameter.numel() for parameter in plain.model.layers[1].parameters())


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (0, "trainable_layers is 0; the model has 2 layers: give 1 to 2 for its last layers"),
        (3, "trainable_layers is 3; the model has 2 layers"),
        (-3, "trainable_layers is -3; the model has 2 layers"),
        (["layers.9"], "the model has no module layers.9; it has model, lm_head, model.embed_tokens, model.layers"),
        ([], "trainable_layers names no layer"),
        ([""], "the model has no module ;"),
    ],
)
def test_layers_that_do_not_exist_are_refused(layers, message):
    with pytest.raises(ModelError, match=message):
        trained_modules(make_model(make_tokenizer()), layers)


def test_a_tied_output_layer_is_refused():
    model = make_model(make_tokenizer(), tie_word_embeddings=True)
    with pytest.raises(ModelError, match="lm_head shares its weight with the other end"):
        trained_modules(model, ["lm_head"])
