"""Weighted sums of scores from roles and from outside."""

import pytest
import torch

from alignment.errors import ScorerError
from alignment.train.policy_gradient.scoring import ScorePart, Scoring


class Says:
    def __init__(self, *scores):
        self.scores, self.stopped = list(scores), None

    def score(self, prompts, answers, *, stopped):
        self.stopped = stopped
        return self.scores


def test_a_sum_of_a_role_an_ensemble_and_a_function():
    rules = Says(1.0, 0.0)
    scoring = Scoring(
        (
            ScorePart(("reward",), name="taste", weight=2.0),
            ScorePart(
                ("reward_1", Says(5.0, -3.0)), name="crowd", weight=0.5, aggregate="lcb", uncertainty_penalty=2.0
            ),
            ScorePart((rules,), name="rules", weight=-1.0),
        )
    )
    assert scoring.roles == ["reward", "reward_1"]
    told = scoring.score_outside(["p", "q"], ["a", "b"], stopped=[True, False])
    assert told == [[5.0, -3.0], [1.0, 0.0]]
    assert rules.stopped == [True, False]
    by_role = {"reward": torch.tensor([0.25, -1.0]), "reward_1": torch.tensor([3.0, -3.0])}
    scored = scoring.combine(by_role, torch.tensor(told))
    # crowd: (3 + 5) / 2 - 2 · 1 = 2; -3 - 0. total: 2 · 0.25 + 0.5 · 2 - 1 = 0.5; -2 - 1.5 - 0 = -3.5
    assert scored.total.tolist() == [0.5, -3.5]
    assert torch.equal(scored.normalized, scored.total)
    assert {name: part.tolist() for name, part in scored.parts.items()} == {
        "taste": [0.25, -1.0],
        "crowd": [2.0, -3.0],
        "crowd_std": [1.0, 0.0],
        "rules": [1.0, 0.0],
    }


def test_each_reward_model_is_normalised_by_its_own_scale():
    scoring = Scoring(
        (
            ScorePart(("reward",), name="taste", weight=2.0, scales=((1.0, 0.5),)),
            ScorePart(("a", "b"), name="crowd", aggregate="min", scales=((10.0, 5.0), (0.0, 0.25))),
        )
    )
    by_role = {"reward": torch.tensor([2.5]), "a": torch.tensor([15.0]), "b": torch.tensor([1.0])}
    scored = scoring.combine(by_role, torch.zeros(0, 1))
    # 2 · (2.5 - 1) / 0.5 = 6; of (15 - 10) / 5 = 1 and 1 / 0.25 = 4 the smaller, though of 15 and 1 it is the other
    assert scored.normalized.tolist() == [7.0]
    assert scored.total.tolist() == [6.0]  # 2 · 2.5 + min(15, 1)
    assert scored.parts["taste"].tolist() == [2.5]


def test_nothing_named_is_the_reward_role_alone():
    scoring = Scoring.of(None)
    assert (scoring.roles, scoring.outside) == (["reward"], [])
    scored = scoring.combine({"reward": torch.tensor([1.5, 2.0])}, torch.zeros(0, 2))
    assert (scored.total.tolist(), scored.parts) == ([1.5, 2.0], {})


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([1.0], "scorer x returned 1 scores for 2 answers"),
        ([1.0, float("nan")], "scorer x returned nan for the answer 'b'; a score is a finite number"),
        ([float("inf"), 0.0], "scorer x returned inf"),
        ([0.0, 1e300], "scorer x returned 1e.300 for the answer 'b'; a score is a finite number that float32 holds"),
    ],
)
def test_an_invalid_score_stops_the_run(scores, said):
    with pytest.raises(ScorerError, match=said):
        Scoring((ScorePart((Says(*scores),), name="x"),)).score_outside(["p", "q"], ["a", "b"], stopped=[True, True])
