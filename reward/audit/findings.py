"""The findings of an audit as text: healthy and unhealthy ones, with remedies.

The thresholds are rules of thumb; docs/feedback.md gives the reason for each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alignment.report.charts import number
from alignment.report.wording import percent

FAILED = 0.05  # share of comparisons without a label
CONSISTENT = 0.8  # both orders name the same winner
LEANS = 0.05  # a position or length that wins 55 % of the time
CYCLIC = 0.1  # of triads; random labels have a quarter
STEADY = 0.9  # repeats that agree
SEEN = 0.9  # mass on the verdict's tokens
MODERATE, SUBSTANTIAL = 0.4, 0.6  # kappa, Landis & Koch 1977
MISCALIBRATED = 0.1  # ECE
WIDE = 0.15  # half of kappa's interval, beyond which it is too uncertain


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding about a judge."""

    healthy: bool
    claim: str
    evidence: str  # with a remedy, if it is not healthy

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"healthy": self.healthy, "claim": self.claim, "evidence": self.evidence}


def findings(found: dict[str, Any]) -> list[Finding]:
    """Return the findings about one audited judge, unhealthy ones first."""
    alone, people = found["measures"], found["against"]
    listed = [*_alone(alone), *(_people(people) if people else _without_people()), *_calibration(found["calibration"])]
    return sorted(listed, key=lambda finding: finding.healthy)


def estimate(measure: dict[str, Any], *, share: bool = True) -> str:
    """Write a value with its interval: 93.5 % [88.5, 97.5]."""
    low, high = measure.get("low"), measure.get("high")
    if share:
        value = percent(measure["value"], 1)
        return value if low is None or high is None else f"{value} [{100 * low:.1f}, {100 * high:.1f}]"
    value = number(measure["value"])
    return value if low is None or high is None else f"{value} [{number(low)}, {number(high)}]"


def points(measure: dict[str, Any]) -> str:
    """Write a difference of shares in percentage points, with its sign and interval."""
    value, low, high = measure["value"], measure.get("low"), measure.get("high")
    ends = "" if low is None or high is None else f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    return f"{100 * value:+.1f} points{ends}".replace("-", "−")


def _alone(alone: dict[str, Any]) -> Iterator[Finding]:
    if covered := alone["coverage"]:
        failed = {k: n for k, n in covered["statuses"].items() if k not in ("ok", "tie")}
        why = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in failed.items())
        if 1 - covered["value"] > FAILED:
            evidence = (
                f"{estimate(covered)} have a label ({why}). Read the replies in calls.sqlite and correct the prompt."
            )
            yield Finding(False, "Many comparisons have no label", evidence)
        else:
            yield Finding(
                True, "Nearly every comparison has a label", f"{estimate(covered)}{f' ({why})' if why else ''}"
            )
    if consistent := alone["consistency"]:
        same = alone["same_position"]
        if consistent["value"] < CONSISTENT:
            evidence = (
                f"both orders name the same winner in {estimate(consistent)}; in {percent(same['value'], 1)} the same "
                "position wins. Averaged over both orders such labels are near one half and carry little information: "
                "try a stronger judge, reasoning before the verdict, or another prompt."
            )
            yield Finding(False, "The order of the answers decides too often", evidence)
        else:
            yield Finding(True, "Both orders agree", f"in {estimate(consistent)} of comparisons")
    yield from _leaning(alone["position_bias"])
    if (cycles := alone["cyclic_triads"]) and cycles["value"] > CYCLIC:
        evidence = f"{estimate(cycles)} of triads are circular (random labels have 25%): no ranking explains them."
        yield Finding(
            False, "The judge contradicts itself", f"{evidence} Set judge.samples above 1, or use a stronger judge."
        )
    elif cycles:
        yield Finding(True, "Labels form rankings", f"{estimate(cycles)} of {cycles['n']} triads are circular")
    if steady := alone["self_consistency"]:
        if steady["value"] < STEADY:
            evidence = f"repeats name the same winner in {estimate(steady)}. Lower judge.temperature."
            yield Finding(False, "Repeated questions get different verdicts", evidence)
        else:
            yield Finding(True, "Repeated questions get the same verdict", f"in {estimate(steady)}")
    if (mass := alone["mass"]) and mass["value"] < SEEN:
        evidence = (
            f"the verdict's tokens have {estimate(mass)} of the probability. Require a label alone as the reply in the "
            "prompt, or let the model reason first."
        )
        yield Finding(False, "Probabilities are estimated from improbable tokens", evidence)


def _leaning(bias: dict[str, Any] | None) -> Iterator[Finding]:
    if bias is None:
        return
    side = "first" if bias["value"] > 0 else "second"
    rate = f"the answer shown first wins {percent(0.5 + bias['value'], 1)} of the time ({points(bias)})"
    if abs(bias["value"]) > LEANS and _apart(bias):
        evidence = f"{rate}. Always ask in both orders; their average removes this bias from the mean."
        yield Finding(False, f"The judge prefers the answer shown {side}", evidence)
    else:
        yield Finding(True, "The position has little influence", rate)


def _without_people() -> Iterator[Finding]:
    evidence = (
        "no label was compared with a person's, so the accuracy of the judge is unknown. "
        "`alignment audit LABELS --suggest 100` selects comparisons, and people rank them with `alignment annotate`."
    )
    yield Finding(False, "Not checked by people", evidence)


def _people(people: dict[str, Any]) -> Iterator[Finding]:
    agreed = people["kappa_of_all"] or people["kappa"]
    if agreed and agreed["value"] is not None:
        value, low, high = agreed["value"], agreed["low"], agreed["high"]
        shown = f"Cohen's kappa {estimate(agreed, share=False)}, on {people['comparisons']} comparisons"
        if value < MODERATE:
            yield Finding(False, "The judge does not agree with people", f"{shown}. Do not train on these labels.")
        else:
            claim = (
                "The judge agrees with people" if value >= SUBSTANTIAL else "The judge agrees with people moderately"
            )
            yield Finding(True, claim, shown)
        if low is not None and high is not None and (high - low) / 2 > WIDE:
            evidence = (
                f"the interval of kappa is {number(low)} to {number(high)}. Let people check more: `--suggest 100`."
            )
            yield Finding(False, "Too few comparisons were checked", evidence)
    if right := people["accuracy"]:
        strict = people["accuracy_strict"]
        shown = f"its label is theirs in {estimate(right)} of comparisons that people decided and it labelled"
        if strict["value"] < right["value"]:
            shown += f", in {estimate(strict)} of all that they decided"
        if right["value"] > 0.5:
            yield Finding(True, "The judge prefers what people prefer", shown)
        else:
            claim = "The judge does not prefer what people prefer"
            yield Finding(False, claim, f"{shown}. Do not train on its labels.")
    if repeated := people["repeated_votes"]:
        evidence = f"{repeated} votes are a person's second or later one on a comparison; a person's votes are averaged"
        yield Finding(True, "People voted more than once", evidence)
    if ceiling := people["human_ceiling"]:
        behind = ceiling["judge_behind"]
        shown = f"one person agrees with the others in {estimate(ceiling)}, the judge in {estimate(ceiling['judge'])}"
        if _apart(behind) and behind["value"] > 0:
            yield Finding(False, "The judge is worse than one more person", f"{shown} ({points(behind)})")
        else:
            yield Finding(True, "The judge is not measurably worse than one more person", shown)
    if gap := people.get("length_bias_difference"):
        judge, own = (percent(0.5 + people[key]["value"], 1) for key in ("judge_length_bias", "people_length_bias"))
        shown = f"the longer answer wins {judge} with the judge and {own} with people ({points(gap)})"
        if abs(gap["value"]) > LEANS and _apart(gap):
            side = "long" if gap["value"] > 0 else "short"
            evidence = f"{shown}. A policy learns this: state in the prompt that length does not count."
            yield Finding(False, f"The judge prefers {side} answers more than people do", evidence)
        else:
            yield Finding(True, "Length influences the judge as it influences people", shown)


def _calibration(found: dict[str, Any] | None) -> Iterator[Finding]:
    if found is None:
        return
    error = found["before"]["ece"]
    shown = f"expected calibration error {estimate(error, share=False)}"
    mended = found.get("temperature")
    if mended is None:
        return
    heat, after = mended["fitted"]["temperature"], mended["after"]["ece"]["value"]
    if error["value"] > MISCALIBRATED:
        kind = "overconfident" if heat > 1 else "underconfident"
        evidence = f"{shown}; at temperature {number(heat)} it would be {number(after)}. Set calibration in the recipe."
        yield Finding(False, f"The judge is {kind}", evidence)
    else:
        yield Finding(True, "Probabilities are calibrated", f"{shown}; at temperature {number(heat)}: {number(after)}")


def _apart(measure: dict[str, Any]) -> bool:
    """Whether the interval is on one side of zero."""
    low, high = measure.get("low"), measure.get("high")
    return low is not None and high is not None and (low > 0 or high < 0)
