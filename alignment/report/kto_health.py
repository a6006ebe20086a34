"""Health findings of a KTO run, each with its numbers and its curve."""

from collections.abc import Iterator, Sequence
from typing import Any

from alignment.report.charts import Chart, chart, number
from alignment.report.curves import Series, is_number, series_of
from alignment.report.health import Finding

FEWEST_LOGS = 6  # fewer show no trend
SATURATED = 4.0  # of β z: σ(4) = 0.98, so that an answer as likely as under the reference has a loss without a slope
HEALTHY = "good answers are told from bad ones and do not become less probable, and the KL holds"
END = 8  # the last eighth of the logs is the end of a run


def findings(metrics: Sequence[dict[str, Any]], recipe: dict[str, Any]) -> list[Finding] | None:
    """Return what is unhealthy in a KTO run's log; None if too little was logged.

    Args:
        metrics: rows of metrics.jsonl. recipe: as resolved.
    """
    series = {key: points for key, points in series_of(metrics).items() if len(points) >= FEWEST_LOGS}
    if "rewards/margins" not in series:
        return None
    return [*_margin(series), *_good(series), *_kl(series, recipe)]


def _margin(series: Series) -> Iterator[Finding]:
    margin = _end(series, "rewards/margins")
    if margin <= 0:
        evidence = (
            f"rewards/margins is {number(margin)} at the end: the policy does not prefer good answers more than the "
            "reference does. Raise learning_rate, train longer, or look at the labels with `alignment preview`."
        )
        yield Finding("Good and bad answers are not told apart", evidence, _drawn(series, "Margin", "rewards/margins"))


def _good(series: Series) -> Iterator[Finding]:
    if "rewards/chosen" not in series:
        return
    reward = _end(series, "rewards/chosen")
    if reward < 0:
        evidence = (
            f"rewards/chosen is {number(reward)} at the end, below 0: good answers are less probable than under the "
            "reference. Raise desirable_weight, lower learning_rate, or raise beta."
        )
        yield Finding("Good answers become less probable", evidence, _drawn(series, "Reward", "rewards/chosen"))


def _kl(series: Series, recipe: dict[str, Any]) -> Iterator[Finding]:
    beta = recipe.get("beta", 0.1)  # KTOConfig's default
    if "kl" not in series or not is_number(beta):
        return
    kl = _end(series, "kl")
    if beta * kl > SATURATED:
        evidence = (
            f"kl is {number(kl)} nats at the end, beta times it {number(beta * kl)} (more than {SATURATED:g}), "
            "so the loss has hardly a slope. Lower learning_rate, or raise beta."
        )
        yield Finding("The KL to the reference runs away", evidence, _drawn(series, "KL", "kl"))


def _end(series: Series, key: str) -> float:
    points = series[key][-max(1, len(series[key]) // END) :]
    return sum(value for _, value in points) / len(points)


def _drawn(series: Series, title: str, key: str) -> Chart:
    return chart(title, [(key, series[key])], "")
