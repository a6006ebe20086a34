"""Agreement with verl 0.9.1, whose inputs and outputs lie in ../shared/golden/ppo_verl.json."""

import json

import pytest
import torch

from alignment.ops.advantages import advantages_and_returns
from alignment.ops.kl import kl_estimate
from alignment.ops.losses import aggregate, policy_loss, value_loss
from alignment.ops.masking import masked_mean, whiten

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
CASES = range(8)


@pytest.fixture(scope="module")
def golden(shared):
    return json.loads((shared / "golden" / "ppo_verl.json").read_text())["cases"]


@pytest.fixture
def case(golden, request):
    case = golden[request.param]
    inputs = {name: torch.tensor(value) for name, value in case["inputs"].items()}
    return case, {**inputs, "mask": inputs["mask"].bool()}


def test_the_file_has_as_many_cases_as_are_tested(golden):
    assert len(golden) == len(CASES)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_gae_and_whitening(case):
    golden, x = case
    gamma, lam = golden["gae"]["gamma"], golden["gae"]["lam"]
    advantages, returns = advantages_and_returns(
        x["rewards"], x["values"], x["mask"], gamma=gamma, lam=lam, lam_value=lam
    )
    expected = torch.tensor(golden["gae"]["advantages_whitened"])
    torch.testing.assert_close(whiten(advantages, x["mask"])[x["mask"]], expected[x["mask"]], **TOLERANCE)
    torch.testing.assert_close(returns[x["mask"]], torch.tensor(golden["gae"]["returns"])[x["mask"]], **TOLERANCE)


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.parametrize(("ours", "theirs"), [("k1", "kl"), ("k2", "mse"), ("k3", "low_var_kl")])
def test_kl(case, ours, theirs):
    golden, x = case
    expected = torch.tensor(golden["kl"][theirs])
    torch.testing.assert_close(kl_estimate(x["logp"], x["ref_logp"], ours), expected, **TOLERANCE)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_policy_loss(case):
    golden, x = case
    advantages = torch.tensor(golden["gae"]["advantages_whitened"])
    for expected in golden["policy_loss"]:
        result = policy_loss(
            x["logp"],
            x["old_logp"],
            advantages,
            cliprange=expected["clip_low"],
            cliprange_high=expected["clip_high"],
            dual_clip=expected["dual_clip"],
        )
        loss = aggregate(result.loss, x["mask"], expected["aggregation"])
        assert float(loss) == pytest.approx(expected["loss"], rel=1e-5, abs=1e-5)
        metrics = expected["metrics"]
        assert float(masked_mean(result.clipped.float(), x["mask"])) == pytest.approx(metrics["actor/pg_clipfrac"])
        bound = float(masked_mean(result.dual_clipped.float(), x["mask"]))
        assert bound == pytest.approx(metrics["actor/pg_clipfrac_lower"])
        kl = masked_mean(x["old_logp"] - x["logp"], x["mask"])
        assert float(kl) == pytest.approx(metrics["actor/ppo_kl"], abs=1e-5)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_value_loss(case):
    golden, x = case
    returns = torch.tensor(golden["gae"]["returns"])
    for expected in golden["value_loss"]:
        result = value_loss(x["vpreds"], x["values"], returns, cliprange_value=expected["clip"])
        loss = aggregate(result.loss, x["mask"], expected["aggregation"])
        # verl 0.9.1 multiplies by one half after aggregating, as we do before
        assert float(loss) == pytest.approx(expected["loss"], rel=1e-5, abs=1e-5)
        clipped = float(masked_mean(result.clipped.float(), x["mask"]))
        assert clipped == pytest.approx(expected["clip_fraction"])
