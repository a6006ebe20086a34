"""FISH masks: the Fisher information against a loop, which weights are chosen, and that only they change."""

import pytest
import torch
from peft import PeftModel, ShiraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from alignment.errors import ModelError
from alignment.policy.methods.fisher import fisher_information, most_informative
from alignment.policy.methods.fishmask import choose_by_fisher
from alignment.policy.methods.sparse import (
    base_parameters,
    hold_repeated_places,
    sparse_layers,
    trained_places,
)
from tests.models import make_model, make_tokenizer

EXAMPLES = [torch.arange(start, start + 20)[None] for start in range(3, 11)]


def sparse(model, **keys):
    model.requires_grad_(False)
    wrapped = get_peft_model(model, ShiraConfig(task_type="CAUSAL_LM", r=1, target_modules="all-linear", **keys))
    hold_repeated_places(wrapped)
    return wrapped


def losses(model):
    return [lambda ids=ids: model(ids, labels=ids).loss for ids in EXAMPLES]


def train(model, steps=3):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)
    for ids in EXAMPLES[:steps]:
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()


def chosen_weights(model):
    return sum(int(trained_places(layer, "default").sum()) for layer in sparse_layers(model, "default").values())


def test_the_information_is_the_mean_square_of_each_examples_gradient():
    model = make_model(make_tokenizer())
    linear = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    expected = {name: torch.zeros_like(layer.weight) for name, layer in linear.items()}
    for ids in EXAMPLES:
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        for name, layer in linear.items():
            expected[name] += layer.weight.grad**2 / len(EXAMPLES)
    model.requires_grad_(False)
    found = fisher_information(model, linear, losses(model))
    for name in linear:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-12)


def test_the_weights_with_the_most_information_are_chosen_within_each_layers_room():
    information = {"a": torch.tensor([[9.0, 1.0], [8.0, 7.0]]), "b": torch.tensor([[2.0, 6.0]])}
    room = {"a": 9, "b": 9}
    assert {n: p.tolist() for n, p in most_informative(information, 4, room).items()} == {"a": [0, 2, 3], "b": [1]}
    # two places in a: the third is taken by the next of b
    assert {n: p.tolist() for n, p in most_informative(information, 4, {"a": 2, "b": 9}).items()} == {
        "a": [0, 2],
        "b": [0, 1],
    }


def test_exactly_2_percent_of_stories260k_changes_and_plain_peft_loads_them(shared, tmp_path):
    folder = shared / "models" / "stories260K"
    model = sparse(AutoModelForCausalLM.from_pretrained(folder))
    assert base_parameters(model) == 260_032
    assert choose_by_fisher(model, losses(model), fraction=0.02) == 5_200
    assert chosen_weights(model) == 5_200
    train(model)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = model.eval()(EXAMPLES[0]).logits
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path)
    with torch.no_grad():
        assert torch.equal(plain.eval()(EXAMPLES[0]).logits, expected)
    merged = dict(plain.merge_and_unload().named_parameters())
    base = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())
    assert sum(int((merged[name] != base[name]).sum()) for name in base) == 5_200


def test_a_layer_without_a_chosen_weight_does_not_change_also_after_loading(tmp_path):
    model = sparse(make_model(make_tokenizer()))
    choose_by_fisher(model, losses(model), fraction=0.001)
    layers = sparse_layers(model, "default").values()
    empty = [layer for layer in layers if not layer.shira_weight["default"].count_nonzero()]
    train(model)
    unused = [layer for layer in layers if not layer.shira_weight["default"].count_nonzero()]
    assert 0 < len(unused) < len(empty)
    model.save_pretrained(tmp_path)
    count = chosen_weights(model)
    loaded = PeftModel.from_pretrained(make_model(make_tokenizer()), tmp_path, is_trainable=True)
    assert chosen_weights(loaded) == count
    hold_repeated_places(loaded)
    train(loaded)
    before = dict(make_model(make_tokenizer()).named_parameters())
    after = dict(loaded.merge_and_unload().named_parameters())
    assert sum(int((after[name] != before[name]).sum()) for name in before) == count


def test_a_base_in_4_bits_has_the_information_of_its_dequantised_weights(tmp_path):
    make_model(make_tokenizer(), hidden_size=64).save_pretrained(tmp_path)
    quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    model = sparse(AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=quantised))
    whole = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert base_parameters(model) == base_parameters(whole)
    count = choose_by_fisher(model, losses(model), fraction=0.01)
    train(model)
    assert chosen_weights(model) == count


def test_more_weights_than_the_layers_have_room_for_are_refused():
    model = sparse(make_model(make_tokenizer()))
    with pytest.raises(ModelError, match="too many for a sparse adapter on these layers: it has places for"):
        choose_by_fisher(model, losses(model), fraction=1.0)
    with pytest.raises(ModelError, match=r"r is 1; [\d,]+ weights on these layers need an r from 4 to 10"):
        choose_by_fisher(model, losses(model), fraction=0.1)
