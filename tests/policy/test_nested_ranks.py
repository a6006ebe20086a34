"""DyLoRA's forward pass against its equation, and an adapter that is cut."""

from collections import Counter

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer

from alignment.policy.methods.dylora import RankSampling
from alignment.policy.methods.nested_ranks import NestedRanks, cut_to_rank
from tests.models import make_model, make_tokenizer

IDS = torch.arange(3, 40)[None]


def lora(seed=0, **keys):
    torch.manual_seed(seed)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", init_lora_weights=False, **keys)
    return get_peft_model(make_model(make_tokenizer()), config)


def nested(model, **options):
    return NestedRanks([layer for layer in model.modules() if isinstance(layer, LoraLayer)], **options)


@pytest.mark.parametrize("rank", [1, 3, 8])
@pytest.mark.parametrize(("keys", "scale"), [({}, lambda b: 16 / b), ({"use_rslora": True}, lambda b: 16 / b**0.5)])
def test_a_layer_computes_the_papers_equation_at_a_rank(rank, keys, scale):
    model = lora(**keys)
    ranks = nested(model)
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    x = torch.randn(5, 32)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = x @ layer.base_layer.weight.T + scale(rank) * (x @ a[:rank].T) @ b[:, :rank].T
    with ranks.at(rank):
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_only_the_first_directions_have_gradients():
    model = lora()
    with nested(model).at(3):
        model(IDS, labels=IDS).loss.backward()
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    down, up = layer.lora_A["default"].weight.grad, layer.lora_B["default"].weight.grad
    assert down[:3].abs().min() > 0
    assert torch.equal(down[3:], torch.zeros_like(down[3:]))
    assert torch.equal(up[:, 3:], torch.zeros_like(up[:, 3:]))


def test_a_step_changes_the_first_directions_alone_also_with_adams_averages_of_earlier_gradients():
    model = lora()
    sampling = RankSampling(model, seed=0, steps=1, on_policy=False)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], weight_decay=0.1)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    for rank in (8, 3):
        sampling.ranks.rank = rank
        before = down.detach().clone(), up.detach().clone()
        optimizer.zero_grad()
        model(IDS, labels=IDS).loss.backward()
        sampling.on_pre_optimizer_step(None, None, None)
        optimizer.step()
        sampling.on_optimizer_step(None, None, None)
        assert (down[:rank] != before[0][:rank]).any(1).all()
        assert (up[:, :rank] != before[1][:, :rank]).any(0).all()
    assert torch.equal(down[3:], before[0][3:])
    assert torch.equal(up[:, 3:], before[1][:, 3:])


def test_the_rank_of_a_step_is_uniform_and_the_same_in_every_process():
    ranks = nested(lora())
    assert ranks.full == 8
    drawn = [ranks.sample(seed=7, step=step) for step in range(8000)]
    again = nested(lora())
    assert drawn[:100] == [again.sample(seed=7, step=step) for step in range(100)]
    counts = Counter(drawn)
    assert sorted(counts) == list(range(1, 9))
    # 1,000 each on average; five standard deviations are 5 * sqrt(8000 * 1/8 * 7/8) = 148
    assert all(abs(count - 1000) < 148 for count in counts.values())


def test_a_cut_adapter_is_the_adapter_at_that_rank():
    whole = lora()
    with nested(whole).at(2), torch.no_grad():
        expected = whole(IDS).logits
    weights = cut_to_rank(get_peft_model_state_dict(whole), 2)
    small = get_peft_model(make_model(make_tokenizer()), LoraConfig(r=2, lora_alpha=16, target_modules="all-linear"))
    set_peft_model_state_dict(small, weights)
    with torch.no_grad():
        torch.testing.assert_close(small(IDS).logits, expected, rtol=1e-4, atol=1e-5)


def test_without_a_rank_the_layers_are_plain_lora():
    model = lora()
    with torch.no_grad():
        before = model(IDS).logits
    ranks = nested(model)
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, before)
        with ranks.at(4):
            assert not torch.equal(model(IDS).logits, before)
        assert torch.equal(model(IDS).logits, before)


def test_evaluation_can_be_at_the_full_rank():
    model = lora().eval()
    with torch.no_grad():
        before = model(IDS).logits
        with nested(model, while_evaluating=False).at(2):
            assert torch.equal(model(IDS).logits, before)
            assert not torch.equal(model.train()(IDS).logits, before)
