"""Health findings of a PPO run, each with its numbers and its curve.

The thresholds are rules of thumb; docs/ppo.md gives the reason for each beside the table of what is logged.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.report.charts import Chart, Point, chart, number
from alignment.report.curves import is_number, series_of
from alignment.report.reading import Run
from alignment.report.wording import label, percent, share_interval

FEWEST_UPDATES = 6  # fewer show no trend
KL_PER_TOKEN = 0.5  # nats: on average the policy finds its own tokens e^0.5 = 1.6 times likelier than the reference
KL_WORTH_A_WORD = 5.0  # nats per answer; below it, faster growth is not reported
KL_FASTER = 1.5  # growth of the last third over that of the middle third
ENTROPY_LEFT = 0.3  # share of the first updates' entropy
EXPLAINED = 0.05  # of the returns' variance, over the second half of the run
LONGER, SHORTER = 1.5, 0.5  # answer length against the first updates'
EQUAL = 0.5  # share of groups whose answers all have one score, over the second half of the run
STOPPED = 0.5  # share of answers that end with a stop token, over the second half of the run
DISTINCT = 0.5  # share of different answers in a rollout
KL_KEY = "kl_coef (beta in GRPO and RLOO)"
HEALTHY = "the KL holds, entropy and lengths keep, answers differ, and the value foresees returns"
SURE = 2.0  # standard errors that a slope must lie from zero


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    claim: str
    evidence: str
    chart: Chart


@dataclass(frozen=True, slots=True)
class Watched:
    """The win rate of the policy against the baseline, by a judge that was not used in training."""

    judge: str
    baseline: str
    rate: dict[str, Any]  # value, low, high


def is_ppo_log(metrics: Sequence[dict[str, Any]]) -> bool:
    """Whether there are enough updates to speak of."""
    return len(series_of(metrics).get("score", ())) >= FEWEST_UPDATES


def findings(metrics: Sequence[dict[str, Any]], watched: Sequence[Watched] = ()) -> list[Finding]:
    """Return what is unhealthy in a PPO run's log.

    Args:
        metrics: rows of metrics.jsonl. watched: verdicts of judges that no stage was trained with.
    """
    series = {key: points for key, points in series_of(metrics).items() if len(points) >= FEWEST_UPDATES}
    return [
        found
        for rule in (_kl, _gaming, _entropy, _value, _equal_groups, _truncated, _length, _repeating)
        for found in rule(series, watched)
    ]  # fmt: skip


def watching(runs: Sequence[Run], policy: Run, training_judges: Sequence[str]) -> list[Watched]:
    """Verdicts on a run's policy by the judges that gave no labels."""
    found = []
    for run in runs:
        recipe = _mapping(run.manifest.get("recipe"))
        candidates = recipe.get("candidates")
        for entry in map(_mapping, candidates if isinstance(candidates, list) else []):
            if Path(str(entry.get("model_name_or_path"))).name != policy.name:
                continue
            rates = _mapping(_mapping(run.results.get("win_rate")).get(str(entry.get("name"))))
            for judge, rate in rates.items():
                if judge not in training_judges and is_number(_mapping(rate).get("value")):
                    found.append(Watched(judge, str(run.results.get("baseline", "the baseline")), rate))
    return found


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


Series = dict[str, list[Point]]


def _kl(series: Series, _: Sequence[Watched]) -> Iterator[Finding]:
    if "kl" not in series:
        return
    points = series["kl"]
    last, third = _ends(points)[1], len(points) // 3
    steps = [_mean(points[i * third : (i + 1) * third or None]) for i in range(2)] + [_mean(points[-third:])]
    middle, late = steps[1] - steps[0], steps[2] - steps[1]
    tokens = _ends(series["answer_tokens"])[1] if "answer_tokens" in series else math.inf
    drawn = chart("KL", [("KL", points)], "nats per answer")
    if last / tokens > KL_PER_TOKEN:
        evidence = f"{number(last)} nats an answer, {number(last / tokens)} a token (more than {KL_PER_TOKEN})"
    elif last > KL_WORTH_A_WORD and late > KL_FASTER * max(middle, 0.0):
        evidence = f"it grew by {number(late)} nats in the last third, by {number(middle)} in the one before"
    else:
        return
    yield Finding("The KL to the reference runs away", f"{evidence}. Raise {KL_KEY} or lower learning_rate.", drawn)


def _gaming(series: Series, watched: Sequence[Watched]) -> Iterator[Finding]:
    if "score" not in series or _slope(series["score"]) <= SURE:
        return
    first, last = _ends(series["score"])
    rises = f"the reward model's score rose from {number(first)} to {number(last)}"
    for each in watched:
        high = each.rate.get("high")
        if is_number(high) and high < 0.5:
            rate = f"{percent(each.rate['value'])} {share_interval(each.rate)}".rstrip()
            evidence = f"{rises}, but {each.judge} prefers it to {label(each.baseline)} only {rate} of the time"
            yield _gamed(evidence, chart("Score", [("score", series["score"])], "reward model, mean"))
    for key, points in series.items():
        prefix, _, name = key.partition("_")
        if prefix in ("score", "watch") and name != "std" and not name.endswith("_spread") and _slope(points) < -SURE:
            falls = _ends(points)
            evidence = f"{rises}, but {name} fell from {number(falls[0])} to {number(falls[1])}"
            yield _gamed(evidence, chart("Score", [("score", series["score"]), (name, points)], "mean"))


def _gamed(evidence: str, drawn: Chart) -> Finding:
    remedy = f"Stop earlier, raise {KL_KEY}, or train the reward model on answers of this policy."
    return Finding("The policy games the reward model", f"{evidence}. {remedy}", drawn)


def _entropy(series: Series, _: Sequence[Watched]) -> Iterator[Finding]:
    first, last = _ends(series["entropy"]) if "entropy" in series else (0.0, 0.0)
    if first > 0 and last < ENTROPY_LEFT * first:
        evidence = (
            f"from {number(first)} to {number(last)} nats a token. Raise cliprange_high (epsilon_high) or {KL_KEY}."
        )
        drawn = chart("Entropy", [("entropy", series["entropy"])], "nats per token")
        yield Finding("The entropy collapses", evidence, drawn)


def _value(series: Series, _: Sequence[Watched]) -> Iterator[Finding]:
    points = series.get("explained_variance", [])
    explained = _mean(points[len(points) // 2 :]) if points else 1.0
    if explained < EXPLAINED:
        evidence = (
            f"over the second half of the run it foresaw {percent(explained)} of the returns' variance (less than "
            f"{percent(EXPLAINED)}). Raise value_learning_rate, or look whether cliprange_value suits the scores' unit."
        )
        drawn = chart("Explained variance", [("explained", points)], "share")
        yield Finding("The value explains nothing", evidence, drawn)


def _equal_groups(series: Series, _: Sequence[Watched]) -> Iterator[Finding]:
    points = series.get("frac_reward_zero_std", [])
    equal = _mean(points[len(points) // 2 :]) if points else 0.0
    if equal > EQUAL:
        replaced = series.get("rollouts_sampled")
        remedy = "Set dynamic_sampling: true, use prompts of another difficulty, or a finer score."
        if replaced:
            rounds = number(_mean(replaced[len(replaced) // 2 :]))
            remedy = f"dynamic_sampling sampled {rounds} rollouts an update. Use prompts of another difficulty, or a "
            remedy += "finer score."
        evidence = f"{percent(equal)} over the second half of the run; such a group has no advantages. {remedy}"
        drawn = chart("Groups with equal rewards", [("share", points)], "share")
        yield Finding("Most groups of answers have equal rewards", evidence, drawn)


def _truncated(series: Series, _: Sequence[Watched]) -> Iterator[Finding]:
    points = series.get("fraction_stopped", [])
    stopped = _mean(points[len(points) // 2 :]) if points else 1.0
    if stopped < STOPPED:
        evidence = (
            f"{percent(1 - stopped)} over the second half of the run have no stop token. Raise max_new_tokens, set "
            "missing_eos_penalty, or check the stop token."
        )
        drawn = chart("Answers with a stop token", [("share", points)], "share")
        yield Finding("Most answers are truncated", evidence, drawn)


def _length(series: Series, _: Sequence[Watched]) -> Iterator[Finding]:
    if "answer_tokens" not in series:
        return
    points = series["answer_tokens"]
    first, last = _ends(points)
    drawn = chart("Answer length", [("tokens", points)], "tokens")
    evidence = f"from {number(first)} to {number(last)} tokens"
    if last > LONGER * first and _slope(points) > SURE:
        evidence += ". The reward model may like length: see its score's correlation with length."
        yield Finding("Answers creep longer", evidence, drawn)
    elif last < SHORTER * first and _slope(points) < -SURE:
        evidence += ". Read samples.jsonl: are they still answers?"
        yield Finding("Answers shrink", evidence, drawn)


def _repeating(series: Series, _: Sequence[Watched]) -> Iterator[Finding]:
    first, last = _ends(series["distinct_answers"]) if "distinct_answers" in series else (1.0, 1.0)
    if last < DISTINCT < first:
        evidence = f"{percent(first)} of a rollout's answers were different at first, {percent(last)} at the end."
        drawn = chart("Distinct answers", [("share", series["distinct_answers"])], "share")
        yield Finding("The policy repeats itself", evidence, drawn)


def _mean(points: Sequence[Point]) -> float:
    return sum(value for _, value in points) / len(points)


def _ends(points: Sequence[Point]) -> tuple[float, float]:
    """Means over the first and the last eighth, at least one update each."""
    window = max(1, round(len(points) / 8))
    return _mean(points[:window]), _mean(points[-window:])


def _slope(points: Sequence[Point]) -> float:
    """Slope of the least-squares line in its own standard errors (Student's t)."""
    n, middle, mean = len(points), (len(points) - 1) / 2, _mean(points)
    spread = sum((i - middle) ** 2 for i in range(n))
    slope = sum((i - middle) * (value - mean) for i, (_, value) in enumerate(points)) / spread
    left = sum((value - mean - slope * (i - middle)) ** 2 for i, (_, value) in enumerate(points))
    error = math.sqrt(left / (n - 2) / spread)
    return slope / error if error > 0 else math.copysign(math.inf, slope) if slope else 0.0
