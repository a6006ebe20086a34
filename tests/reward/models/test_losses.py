"""The reward losses against hand computed values and a slow float64 loop."""

import math
import random

import pytest
import torch

from alignment.errors import ShapeError
from reward.models.losses import centring_loss, comparison_loss, davidson_loss, pair_loss, ranking_loss, smoothed
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


def test_the_minimum_is_at_the_labels_log_odds() -> None:
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


def test_davidson_by_hand() -> None:
    # worths e^s of 4 and 1, so d = ln 4, e^(d/2) = 2, e^(-d/2) = 1/2; nu = 3/2: Z = 2 + 1/2 + 3/2 = 4
    # P(first) = 1/2, P(tie) = 3/8, P(second) = 1/8; the same by Davidson's own form: 4 / (4 + 1 + 1.5 sqrt(4)) = 4/8
    first, log_nu = tensor(*[math.log(4)] * 4), tensor(math.log(1.5))[0]
    loss = davidson_loss(first, tensor(0, 0, 0, 0), tensor(1, 0.5, 0, 0.75), log_nu)
    # ln 2; ln 8/3; ln 8; 3/4 ln 2 + 1/4 ln 8 = 3/2 ln 2
    assert loss.tolist() == pytest.approx([math.log(2), math.log(8 / 3), math.log(8), 1.5 * math.log(2)], abs=1e-12)


def test_davidson_applies_a_margin_to_the_winner_and_not_to_ties() -> None:
    # d = ln 16, m = ln 4: as d = ln 4 for the first (1/2, above), as -d - m = -ln 64 for the second:
    # e^(-ln 64 / 2) = 1/8, Z = 8 + 1/8 + 3/2 = 77/8, P = 1/77. A tie at d = ln 16: Z = 4 + 1/4 + 3/2 = 23/4, P = 6/23
    first, margin = tensor(*[math.log(16)] * 3), tensor(*[math.log(4)] * 3)
    loss = davidson_loss(first, tensor(0, 0, 0), tensor(1, 0, 0.5), tensor(math.log(1.5))[0], margin)
    assert loss.tolist() == pytest.approx([math.log(2), math.log(77), math.log(23 / 6)], abs=1e-12)


def test_davidsons_outcomes_add_up_to_one_and_without_ties_it_is_bradley_terry() -> None:
    first, second, log_nu = torch.randn(50, dtype=torch.float64), torch.randn(50, dtype=torch.float64), tensor(0.7)[0]
    outcomes = [davidson_loss(first, second, torch.full_like(first, p), log_nu) for p in (1, 0.5, 0)]
    torch.testing.assert_close(sum(torch.exp(-loss) for loss in outcomes), torch.ones_like(first))
    odds = outcomes[2] - outcomes[0]  # log P(first) - log P(second)
    torch.testing.assert_close(odds, first - second)
    probability = torch.rand(50, dtype=torch.float64)
    without = davidson_loss(first, second, probability, tensor(-800)[0])
    torch.testing.assert_close(without, pair_loss(first, second, probability))


def test_davidson_does_not_care_which_answer_is_named_first() -> None:
    first, second, margin = torch.randn(3, 20, dtype=torch.float64).abs()
    probability = torch.cat([torch.rand(15, dtype=torch.float64), tensor(*[0.5] * 5)])
    torch.testing.assert_close(
        davidson_loss(first, second, probability, tensor(0.3)[0], margin),
        davidson_loss(second, first, 1 - probability, tensor(0.3)[0], margin),
    )


def test_extreme_scores_stay_finite_with_ties_too() -> None:
    # P(first) at d = -1000 is e^-500 / e^500: 1000 nats; a tie is nu / e^500: 500 nats at nu 1
    loss = davidson_loss(torch.zeros(2), torch.full((2,), 1000.0), torch.tensor([1.0, 0.5]), torch.tensor(0.0))
    assert loss.tolist() == [1000.0, 500.0]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("with_ties", [False, True])
def test_gradients_by_finite_differences(label_smoothing: float, with_ties: bool) -> None:
    first, second = (torch.randn(6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    log_nu = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    probability, margin = tensor(1, 0, 0.5, 0.5, 0.3, 0.8), tensor(0, 1, 0, 0.5, 0.2, 0)

    def loss(*values: torch.Tensor) -> torch.Tensor:
        nu = values[2] if with_ties else None
        return comparison_loss(*values[:2], probability, margin, label_smoothing=label_smoothing, log_nu=nu)

    assert torch.autograd.gradcheck(loss, (first, second, log_nu) if with_ties else (first, second))


def test_the_best_nu_at_equal_scores_gives_ties_their_share() -> None:
    # P(tie) = nu / (2 + nu) at d = 0, so 3 ties of 4 have nu = 6; there the loss is flat
    log_nu = tensor(math.log(6))[0].requires_grad_()
    davidson_loss(tensor(0, 0, 0, 0), tensor(0, 0, 0, 0), tensor(0.5, 0.5, 0.5, 1), log_nu).sum().backward()
    assert log_nu.grad is not None
    assert log_nu.grad.item() == pytest.approx(0, abs=1e-12)


def test_smoothing_by_hand() -> None:
    # e = 0.1: 1 becomes 0.9, 0.8 becomes 0.9 * 0.8 + 0.1 * 0.2 = 0.74, one half stays, 0 becomes 0.1
    assert smoothed(tensor(1, 0.8, 0.5, 0), 0.1).tolist() == pytest.approx([0.9, 0.74, 0.5, 0.1])


def test_smoothing_moves_no_label_across_one_half_and_makes_no_tie() -> None:
    # at d = ln 3, nu = 1, e = 0.25: label 1 reads 0.75; P = sqrt(3) / (sqrt(3) + 1/sqrt(3) + 1) = 3 / (4 + sqrt(3))
    z = 4 + math.sqrt(3)
    first, log_nu = tensor(math.log(3), math.log(3)), tensor(0)[0]
    loss = comparison_loss(first, tensor(0, 0), tensor(1, 0.5), label_smoothing=0.25, log_nu=log_nu)
    expected = [0.75 * math.log(z / 3) + 0.25 * math.log(z), math.log(z / math.sqrt(3))]
    assert loss.tolist() == pytest.approx(expected, abs=1e-12)
