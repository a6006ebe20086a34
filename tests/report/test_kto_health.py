"""What the report warns of in a KTO run."""

import pytest

from alignment.report.curves import charts_of
from alignment.report.kto_health import findings


def log(**ends):
    """Eight logs in which each number grows evenly from 0 to its end."""
    names = {"kl": "kl", "margins": "rewards/margins", "chosen": "rewards/chosen"}
    return [{"step": step, **{names[key]: end * step / 8 for key, end in ends.items()}} for step in range(1, 9)]


@pytest.mark.parametrize(
    ("ends", "recipe", "claims"),
    [
        ({"kl": 2.0, "margins": 1.0, "chosen": 0.5}, {}, []),
        ({"kl": 2.0, "margins": -0.1, "chosen": 0.5}, {}, ["Good and bad answers are not told apart"]),
        ({"kl": 2.0, "margins": 1.0, "chosen": -0.5}, {}, ["Good answers become less probable"]),
        ({"kl": 41.0, "margins": 1.0, "chosen": 0.5}, {}, ["The KL to the reference runs away"]),  # 0.1 · 41 > 4
        ({"kl": 39.0, "margins": 1.0, "chosen": 0.5}, {}, []),
        ({"kl": 9.0, "margins": 1.0, "chosen": 0.5}, {"beta": 0.5}, ["The KL to the reference runs away"]),
    ],
)
def test_each_finding_has_its_bound(ends, recipe, claims):
    assert [found.claim for found in findings(log(**ends), recipe)] == claims


def test_a_short_log_has_no_findings():
    assert findings(log(kl=1.0, margins=-1.0, chosen=-1.0)[:5], {}) is None
    assert findings([], {}) is None


def test_margins_rewards_and_kl_are_main_charts():
    rows = [
        {**row, "rewards/rejected": -0.1, "eval_rewards/chosen": 0.2} for row in log(kl=1.0, margins=1.0, chosen=1.0)
    ]
    main, _, _ = charts_of(rows)
    assert {"KL", "Margin", "Rewards"} <= {chart.title for chart in main}
