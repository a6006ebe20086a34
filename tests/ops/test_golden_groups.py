"""Agreement of the estimators without a value with verl 0.9.1: ../shared/golden/pg_verl.json."""

import json

import pytest
import torch

from alignment.config.estimators import ADVANTAGE_ESTIMATORS
from alignment.ops import group_advantages
from alignment.ops.advantages import EstimatorInput
from alignment.ops.losses import aggregate, clipped_surrogate
from alignment.ops.masking import whiten
from alignment.ops.surrogates import log_ratio

CASES = range(8)
VERL_EPSILON = {"epsilon_std": 1e-6}


@pytest.fixture(scope="module")
def golden(shared):
    return json.loads((shared / "golden" / "pg_verl.json").read_text())["cases"]


@pytest.fixture
def case(golden, request):
    found = golden[request.param]
    inputs = {name: torch.tensor(value) for name, value in found["inputs"].items()}
    return found, {**inputs, "mask": inputs["mask"].bool()}


def test_the_file_has_as_many_cases_as_are_tested_and_one_has_a_group_of_equal_scores(golden):
    assert len(golden) == len(CASES)
    groups = [
        {score for score, of in zip(case["inputs"]["scores"], case["inputs"]["index"], strict=True) if of == group}
        for case in golden
        for group in set(case["inputs"]["index"])
    ]
    assert any(len(scores) == 1 for scores in groups)


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.parametrize("name", [name for name, entry in ADVANTAGE_ESTIMATORS.items() if not entry.uses_value])
def test_advantages(case, name):
    golden, x = case
    batch = EstimatorInput(x["rewards"], x["mask"], x["index"].tolist())
    found = getattr(group_advantages, name)(batch, **(VERL_EPSILON if name == "grpo" else {})).advantages
    if ADVANTAGE_ESTIMATORS[name].whitens:
        found = whiten(found, x["mask"])
    torch.testing.assert_close(found, torch.tensor(golden["advantages"][name]), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_policy_losses(case):
    golden, x = case
    for expected in golden["policy_loss"]:
        level = "sequence" if expected["kind"] == "gspo" else "token"
        ratio = log_ratio(x["logp"], x["old_logp"], x["mask"], level=level, limit=20.0)
        clips = {"cliprange": expected["clip_low"], "cliprange_high": expected["clip_high"]}
        advantages = torch.tensor(golden["advantages"]["grpo"])
        loss = clipped_surrogate(ratio, advantages, **clips, dual_clip=expected.get("dual_clip")).loss
        assert float(aggregate(loss, x["mask"], expected["aggregation"])) == pytest.approx(expected["loss"], abs=2e-6)
