"""Formatting of numbers and verdicts."""

import datetime
from typing import Any

from alignment.errors import printable
from alignment.report.charts import number

SHOUTED = frozenset({"sft", "dpo", "ppo", "kto", "grpo", "rloo", "ipo", "orpo"})


def label(name: str) -> str:
    """Write a policy's name: acronyms of methods in capitals, all else as the recipe has it."""
    return name.upper() if name in SHOUTED else name


def percent(share: float | None, digits: int = 0) -> str:
    """Write a share in per cent."""
    return "–" if share is None else f"{100 * share:.{digits}f}%"


def share_interval(found: dict[str, Any]) -> str:
    """Write the interval of a share: [78–88]."""
    low, high = found.get("low"), found.get("high")
    return "" if low is None or high is None else f"[{100 * low:.0f}–{100 * high:.0f}]"


def interval(found: dict[str, Any]) -> str:
    """Write the interval of a number."""
    low, high = found.get("low"), found.get("high")
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


def duration(seconds: float | None) -> str:
    """Write a time: 48 s, 4 min 12 s, 3 h 5 min."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def moment(iso: str | None) -> str:
    """Write a time stamp: 21 November 2026, 14:05 UTC."""
    if not iso:
        return ""
    try:
        when = datetime.datetime.fromisoformat(iso)
    except ValueError:
        return iso
    zone = " UTC" if when.utcoffset() == datetime.timedelta(0) else ""
    return f"{when.day} {when:%B %Y, %H:%M}{zone}"


def outcome(rate: dict[str, Any]) -> str:
    """Return the conclusion that an interval supports: better, worse, undecided, or none."""
    value, low, high = rate.get("value"), rate.get("low"), rate.get("high")
    if value is None:
        return "unjudged"
    if low is not None and low > 0.5:
        return "better"
    if high is not None and high < 0.5:
        return "worse"
    return "undecided"


def verdict(candidate: str, baseline: str, rate: dict[str, Any]) -> tuple[str, str]:
    """Return the claim and its evidence, two halves of one sentence."""
    claims = {
        "better": f"{label(candidate)} beats {label(baseline)}",
        "worse": f"{label(candidate)} loses to {label(baseline)}",
        "undecided": f"{label(candidate)} and {label(baseline)} cannot be distinguished",
        "unjudged": f"{label(candidate)} was not judged",
    }
    found = outcome(rate)
    if found == "unjudged":
        return claims[found], "every question to the judge failed"
    return claims[found], f"preferred {percent(rate['value'])} of the time {share_interval(rate)}".rstrip()


def visible(text: str) -> str:
    """Return a text whose line ends and tabs are kept and whose other control characters are escaped."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))
