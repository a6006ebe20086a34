"""The reward losses against hand computed values and a slow float64 loop."""

import math
import random

import pytest
import torch

from alignment.errors import ShapeError
from reward.losses import centring_loss, pair_loss, ranking_loss
from tests.reference.ranking_loss import ranking_loss_reference


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_equal_scores_cost_ln_2_whatever_the_label() -> None:
    loss = pair_loss(tensor(3, 3, 3), tensor(3, 3, 3), tensor(0, 0.3, 1))
    assert loss.tolist() == pytest.approx([math.log(2)] * 3, abs=1e-12)


def test_pair_loss_by_hand() -> None:
    # d = ln 3: sigma(d) = 3/4, sigma(-d) = 1/4
    # p = 1:    -ln(3/4)                   = 0.28768207245178
    # p = 0.25: -(ln(3/4) + 3 ln(1/4)) / 4 = (0.28768207 + 4.15888308) / 4 = 1.11164129
    loss = pair_loss(tensor(math.log(3), math.log(3)), tensor(0, 0), tensor(1, 0.25))
    assert loss.tolist() == pytest.approx([0.28768207245178, 1.1116412889], abs=1e-9)


def test_margin_by_hand() -> None:
    # d = ln 6, m = ln 2: sigma(ln 3) = 3/4 and sigma(-ln 12) = 1/13
    # p = 1: -ln(3/4) = 0.28768207; p = 0: ln 13 = 2.56494936
    arguments = tensor(math.log(6), math.log(6)), tensor(0, 0), tensor(1, 0)
    loss = pair_loss(*arguments, margin=tensor(math.log(2), math.log(2)))
    assert loss.tolist() == pytest.approx([0.2876820725, 2.5649493575], abs=1e-9)


def test_sides_can_be_swapped() -> None:
    first, second, margin = torch.randn(3, 20, dtype=torch.float64).abs()
    probability = torch.rand(20, dtype=torch.float64)
    torch.testing.assert_close(
        pair_loss(first, second, probability, margin), pair_loss(second, first, 1 - probability, margin)
    )


def test_extreme_scores_stay_finite() -> None:
    # -log sigma(-1000) = 1000 exactly in float arithmetic, where log(sigmoid(x)) would be -inf
    loss = pair_loss(torch.tensor([0.0]), torch.tensor([1000.0]), torch.tensor([1.0]))
    assert loss.item() == 1000.0


def test_minimum_lies_at_the_labels_log_odds() -> None:
    # d/dd [-p log sigma(d) - (1-p) log sigma(-d)] = sigma(d) - p = 0 at d = ln(p / (1-p)) = ln 3 for p = 3/4
    difference = tensor(math.log(3)).requires_grad_()
    pair_loss(difference, tensor(0), tensor(0.75)).sum().backward()
    assert difference.grad is not None
    assert difference.grad.item() == pytest.approx(0, abs=1e-12)


def test_centring_is_the_squared_sum() -> None:
    # (1.5 - 0.5)^2 = 1; (2 + 1)^2 = 9; opposite scores cost nothing
    assert centring_loss(tensor(1.5, 2, 4), tensor(-0.5, 1, -4)).tolist() == [1, 9, 0]


def test_ranking_loss_is_the_mean_of_its_pair_losses() -> None:
    scores = tensor(0.3, -1.2, 2.0, 0.1)
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    first, second = torch.tensor(pairs).T
    probability = tensor(1, 0, 1, 0, 0.4, 1)
    expected = pair_loss(scores[first], scores[second], probability).mean()
    loss = ranking_loss(scores, first, second, probability, torch.zeros(6, dtype=torch.long), num_prompts=1)
    torch.testing.assert_close(loss, expected)


def test_prompts_weigh_the_same_however_many_pairs_they_have() -> None:
    # prompt 0: three pairs of equal scores, ln 2 each; prompt 1: one pair with d = ln 3, p = 1, 0.28768207
    # (ln 2 + 0.28768207) / 2 = (0.69314718 + 0.28768207) / 2 = 0.49041463; by pairs it would be 0.59178090
    scores = tensor(0, 0, 0, math.log(3), 0)
    first, second = torch.tensor([[0, 1], [0, 2], [1, 2], [3, 4]]).T
    loss = ranking_loss(scores, first, second, tensor(1, 1, 1, 1), torch.tensor([0, 0, 0, 1]), num_prompts=2)
    assert loss.item() == pytest.approx(0.4904146265, abs=1e-9)


def test_centring_enters_with_its_coefficient() -> None:
    # one pair, scores 1 and 1: ln 2 + 0.01 * (1 + 1)^2 = 0.73314718
    one = torch.tensor([0])
    loss = ranking_loss(tensor(1, 1), one, one + 1, tensor(1), one, num_prompts=1, center_rewards_coefficient=0.01)
    assert loss.item() == pytest.approx(math.log(2) + 0.04, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_against_a_slow_loop(seed: int) -> None:
    generator = random.Random(seed)
    prompts = []
    for _ in range(generator.randint(1, 5)):
        count = generator.randint(2, 5)
        scores = [generator.gauss(0, 2) for _ in range(count)]
        pairs = [
            (i, j, generator.random(), generator.random())
            for i in range(count)
            for j in range(i + 1, count)
            if generator.random() < 0.8 or j == 1
        ]
        prompts.append((scores, pairs))
    expected = ranking_loss_reference(prompts, center_rewards_coefficient=0.1)
    flat_scores, columns = [], []
    for index, (scores, pairs) in enumerate(prompts):
        columns += [(i + len(flat_scores), j + len(flat_scores), p, m, index) for i, j, p, m in pairs]
        flat_scores += scores
    first, second, probability, margin, prompt = zip(*columns, strict=True)
    loss = ranking_loss(
        tensor(*flat_scores),
        torch.tensor(first),
        torch.tensor(second),
        tensor(*probability),
        torch.tensor(prompt),
        num_prompts=len(prompts),
        margin=tensor(*margin),
        center_rewards_coefficient=0.1,
    )
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_shapes_that_differ_are_an_error() -> None:
    with pytest.raises(ShapeError, match=r"one shape \(pairs,\).*'first': \(2,\).*'second': \(1,\)"):
        pair_loss(tensor(0, 0), tensor(0), tensor(1, 1))
