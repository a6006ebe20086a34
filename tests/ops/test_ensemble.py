"""One number from several reward models, by hand."""

import pytest
import torch

from alignment.ops.ensemble import aggregate_scores

SCORES = torch.tensor([[1.0, -2.0], [3.0, -2.0], [8.0, -2.0]])  # three members, two answers


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("mean", [4.0, -2.0]),  # (1 + 3 + 8) / 3
        ("min", [1.0, -2.0]),
        # deviations -3, -1, 4: variance (9 + 1 + 16) / 3 = 26 / 3, its root 2.943920; 4 - 0.5 · 2.943920 = 2.528040
        ("lcb", [2.528040, -2.0]),
    ],
)
def test_by_hand(how, expected):
    torch.testing.assert_close(
        aggregate_scores(SCORES, how, uncertainty_penalty=0.5), torch.tensor(expected), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("how", ["mean", "min", "lcb"])
def test_one_member_is_itself(how):
    assert torch.equal(aggregate_scores(SCORES[:1], how, uncertainty_penalty=3.0), SCORES[0])
