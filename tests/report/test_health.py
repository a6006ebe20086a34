"""An unhealthy PPO run is told in words with its numbers, a healthy one is not slandered."""

import json

import pytest

from alignment.report import build
from alignment.report.health import Watched, findings, is_ppo_log
from tests.report.fake import write_pipeline


def log(updates=24, **keys):
    """A healthy run's log, with some keys replaced by functions of progress, 0 to 1."""
    healthy = {
        "score": lambda t: t,
        "score_std": lambda t: 1.0 - t / 2,
        "kl": lambda t: 6 * t**0.5,
        "entropy": lambda t: 1.5 - 0.5 * t,
        "explained_variance": lambda t: 0.5 * t,
        "answer_tokens": lambda t: 40 + 4 * t,
        "distinct_answers": lambda t: 1.0 - 0.1 * t,
    }
    curves = {**healthy, **keys}
    return [
        {"step": 4 * u, **{name: f((u - 1) / (updates - 1)) for name, f in curves.items() if f is not None}}
        for u in range(1, updates + 1)
    ]


def claims(*given, **keys):
    return [finding.claim for finding in findings(log(**keys), *given)]


def rate(value, low, high):
    return [Watched("gold", "sft", {"value": value, "low": low, "high": high})]


def test_a_healthy_run_has_no_findings():
    assert claims() == []
    assert claims(rate(0.8, 0.7, 0.9)) == []


@pytest.mark.parametrize(
    ("keys", "claim", "evidence"),
    [
        # in thirds of the run 20·t³ has means of about 0.2, 2.7 and 11.6
        ({"kl": lambda t: 20 * t**3}, "The KL to the reference runs away", "nats in the last third, by "),
        # 6 → 24: at the end about 24 / 44 = 0.54 nats a token
        ({"kl": lambda t: 24.5 * t**0.5}, "The KL to the reference runs away", "a token (more than 0.5)"),
        ({"entropy": lambda t: 1.5 - 1.2 * t}, "The entropy collapses", "to 0.35"),  # (0.404 + 0.352 + 0.3) / 3
        ({"explained_variance": lambda t: 0.04}, "The value explains nothing", "foresaw 4% of the returns' variance"),
        ({"explained_variance": lambda t: -1.0}, "The value explains nothing", "foresaw -100%"),
        (
            {"frac_reward_zero_std": lambda t: 0.4 + 0.4 * t},
            "Most groups of answers have equal rewards",
            "70% over the second half",
        ),
        (
            {"frac_reward_zero_std": lambda t: 0.8, "rollouts_sampled": lambda t: 4.0},
            "Most groups of answers have equal rewards",
            "dynamic_sampling sampled 4.00 rollouts an update",
        ),
        ({"fraction_stopped": lambda t: 0.9 - 0.8 * t}, "Most answers are truncated", "71% over the second half"),
        ({"answer_tokens": lambda t: 40 + 25 * t}, "Answers creep longer", "from 41.1 to 63.9 tokens"),
        ({"answer_tokens": lambda t: 40 - 25 * t}, "Answers shrink", "from 38.9 to 16.1 tokens"),
        ({"distinct_answers": lambda t: 1.0 - 0.6 * t}, "The policy repeats itself", "43% at the end"),
        ({"score_watch": lambda t: -t}, "The policy games the reward model", "but watch fell from −0.0435 to −0.957"),
    ],
)
def test_each_fault_is_reported_with_its_numbers_and_its_curve(keys, claim, evidence):
    found = findings(log(**keys))
    assert [finding.claim for finding in found] == [claim]
    assert evidence in found[0].evidence
    assert len(found[0].chart.lines[0].points) == 24


@pytest.mark.parametrize(
    "keys",
    [
        {"kl": lambda t: 20 * t**0.5},  # 0.45 nats a token, slowing down
        {"kl": lambda t: 4 * t**3},  # speeding up, but small
        {"entropy": lambda t: 1.5 - 1.0 * t},  # a third is left
        {"explained_variance": lambda t: 0.06},
        {"frac_reward_zero_std": lambda t: 0.9 - 0.6 * t},
        {"fraction_stopped": lambda t: 0.2 + 0.6 * t},
        {"answer_tokens": lambda t: 40 + 18 * t},  # 1.4 times
        {"answer_tokens": lambda t: 40 - 18 * t},
        {"distinct_answers": lambda t: 1.0 - 0.45 * t},
        {"score": lambda t: 1.0, "score_watch": lambda t: -t},  # the score does not rise: nothing is gamed
        {"score_std": lambda t: 5.0 - 4 * t},  # a spread is no judge
    ],
)
def test_values_within_the_thresholds_are_not_reported(keys):
    assert claims(**keys) == []


def test_a_watching_judge_that_prefers_the_baseline_is_reported_where_the_score_rose():
    found = findings(log(), rate(0.4, 0.34, 0.46))
    assert [finding.claim for finding in found] == ["The policy games the reward model"]
    assert "gold prefers it to SFT only 40% [34–46] of the time" in found[0].evidence
    assert claims(rate(0.46, 0.41, 0.51)) == []  # undecided
    assert findings(log(score=lambda t: -t), rate(0.4, 0.34, 0.46)) == []  # it did not rise


def test_few_updates_say_nothing():
    assert not is_ppo_log(log(updates=5))
    assert findings(log(updates=5, explained_variance=lambda t: -1.0)) == []
    assert is_ppo_log(log(updates=6))


def test_metrics_that_are_not_logged_are_not_judged():
    rows = [{"step": row["step"], "score": row["score"], "kl": float("nan")} for row in log()]
    assert findings(rows) == []


@pytest.mark.parametrize("sick", [False, True])
def test_the_page_reports_it(tmp_path, sick):
    runs = write_pipeline(tmp_path)
    manifest = json.loads((runs / "evaluate/manifest.json").read_text())
    manifest["recipe"]["candidates"] = [{"name": "ppo", "model_name_or_path": f"{runs}/ppo"}]
    (runs / "evaluate/manifest.json").write_text(json.dumps(manifest))
    if sick:
        results = json.loads((runs / "evaluate/results.json").read_text())
        results["win_rate"]["ppo"]["gold"] |= {"value": 0.31, "low": 0.25, "high": 0.38}
        (runs / "evaluate/results.json").write_text(json.dumps(results))
    page = build([runs], tmp_path / "page.html").read_text()
    assert ("gold prefers it to SFT only 31% [25–38] of the time" in page) == sick
    assert ("No sign of trouble" in page) == (not sick)
