"""The audit as one HTML page in the report's style, from the numbers that `--json` writes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.report.build import fill
from alignment.report.charts import Chart, chart, number
from alignment.report.tables import Cell, Track
from alignment.report.wording import duration, interval, percent

TEMPLATE = Path(__file__).parent / "audit.html.jinja"
CLASSES = {"first": "the first", "second": "the second", "tie": "neither"}
TONE, PEOPLE = "c1", "c3"  # the judge's colour and the people's; see the report's style.css


@dataclass
class View:
    """One judge, ready for the page."""

    name: str
    about: str
    problems: list[tuple[str, str]] = field(default_factory=list)  # claim, evidence
    healthy: list[tuple[str, str]] = field(default_factory=list)
    against: list[Track] = field(default_factory=list)
    alone: list[Track] = field(default_factory=list)
    leaning: list[Track] = field(default_factory=list)
    gaps: list[tuple[str, Cell]] = field(default_factory=list)  # differences in percentage points
    agreement: list[tuple[str, list[Cell]]] = field(default_factory=list)  # with people; people among themselves
    among: bool = False  # whether some comparisons have several people's votes
    classes: list[tuple[str, list[Cell]]] = field(default_factory=list)  # precision, recall, F1, and how often named
    errors: list[tuple[str, list[Cell]]] = field(default_factory=list)  # before and after maps: ECE, Brier, NLL
    charts: list[Chart] = field(default_factory=list)
    spent: list[tuple[str, str]] = field(default_factory=list)
    statuses: list[tuple[str, int]] = field(default_factory=list)
    row: list[Cell] = field(default_factory=list)  # of the table that compares judges


COLUMNS = (
    ("Label", "coverage"), ("Orders agree", "both ways of showing"), ("Accuracy", "against people"),
    ("Cohen's κ", "against people"), ("Likes length", "more than people"), ("ECE", "as it says"),
)  # fmt: skip


def page(audits: Sequence[dict[str, Any]], gold: str | None, level: float, people: dict[str, Any] | None = None) -> str:
    """Return the page's HTML."""
    views = [_view(found) for found in audits]
    voted = max(((found["against"] or {}).get("comparisons", 0) for found in audits), default=0)
    name = views[0].name if len(views) == 1 else f"{len(views)} judges" if views else "People's labels"
    voted = max(voted, people["comparisons"] if people and not views else 0)
    columns = [place for place in range(len(COLUMNS)) if any(view.row[place].text != "–" for view in views)]
    return fill(
        TEMPLATE, people=_people(people), name=name, views=views, gold=gold, voted=voted, level=percent(level),
        columns=[COLUMNS[place] for place in columns],
        compared=[(view.name, [view.row[place] for place in columns]) for view in views] if len(views) > 1 else [],
    )  # fmt: skip


def _view(found: dict[str, Any]) -> View:
    alone, people, calibrated = found["measures"], found["against"] or {}, found["calibration"] or {}
    listed = found["findings"]
    written = f" · prompt {', '.join(each[:8] for each in found['prompt_hashes'])}" if found["prompt_hashes"] else ""
    view = View(
        found["judge"],
        f"{found['comparisons']:,} comparisons of {found['prompts']:,} prompts{written}",
        problems=[(one["claim"], one["evidence"]) for one in listed if not one["healthy"]],
        healthy=[(one["claim"], one["evidence"]) for one in listed if one["healthy"]],
    )
    _against(view, people)
    same = alone["same_position"]
    sides = f"first {percent(same['first'], 1)}, second {percent(same['second'], 1)}" if same else ""
    view.alone = _tracks(
        ("have a label", "ok or tie", alone["coverage"], TONE),
        ("both orders agree", "", alone["consistency"], TONE),
        ("the same position wins", sides, same, TONE),
        ("ties", "", alone["tie_rate"], TONE),
        ("circular triads", "a coin has 25%", alone["cyclic_triads"], TONE),
        ("asked again, says the same", "", alone["self_consistency"], TONE),
        ("probability on the verdict", "mass of its tokens", alone["mass"], TONE),
    )
    view.leaning = _tracks(
        ("the answer shown first wins", "over both orders", _from_half(alone["position_bias"]), TONE),
        ("the longer answer wins", "all labels", _from_half(alone["length_bias"]), TONE),
        ("the longer answer wins", "where people voted", _from_half(people.get("judge_length_bias")), TONE),
        ("the longer answer wins", "with people", _from_half(people.get("people_length_bias")), PEOPLE),
    )
    view.classes = _classes(people)
    _calibration(view, calibrated)
    view.spent = _spent(found["spent"])
    view.statuses = list((alone["coverage"] or {}).get("statuses", {}).items())
    gap = people.get("length_bias_difference")
    view.row = [_share(alone["coverage"]), _share(alone["consistency"]), _share(people.get("accuracy")),
                _cell(people.get("kappa_of_all") or people.get("kappa")), _points(gap),
                _cell((calibrated.get("before") or {}).get("ece"))]  # fmt: skip
    return view


def _against(view: View, people: dict[str, Any]) -> None:
    ceiling, right, agreed = (people.get(key) for key in ("human_ceiling", "accuracy", "accuracy_when_consistent"))
    view.against = _tracks(
        ("accuracy", f"of {percent(right['coverage'], 1)} with a label" if right else "", right, TONE),
        ("strict accuracy", "no verdict and ties are wrong", people.get("accuracy_strict"), TONE),
        ("both orders correct", "no verdict and ties are wrong", people.get("both_orders_correct"), TONE),
        *((f"accuracy, {name}", "", one["accuracy"], TONE) for name, one in people.get("subsets", {}).items()),
        ("accuracy of one order", "mean over both", people.get("accuracy_one_order"), TONE),
        ("where both orders agree", f"{percent(agreed['share'], 1)} of all" if agreed else "", agreed, TONE),
        ("one person against the others", "leave one out", ceiling, PEOPLE),
        ("the judge against the same others", "", ceiling["judge"] if ceiling else None, TONE),
    )
    gaps = [("The longer answer wins, beyond people's", people.get("length_bias_difference"))]
    gaps.append(("One person less the judge", ceiling["judge_behind"] if ceiling else None))
    view.gaps = [(name, _points(gap)) for name, gap in gaps if gap]
    alpha, own = people.get("alpha") or {}, people.get("people_alpha") or {}
    rows = [("Cohen's κ", people.get("kappa"), None), ("Cohen's κ, all labels", people.get("kappa_of_all"), None)]
    rows += [(f"Krippendorff's α, {level}", alpha.get(level), own.get(level)) for level in alpha]
    view.among = any(measure and measure["value"] is not None for measure in own.values())
    kept = [(name, judge, alone) for name, judge, alone in rows if judge or alone]
    view.agreement = [
        (name, [_cell(judge), _cell(alone)] if view.among else [_cell(judge)]) for name, judge, alone in kept
    ]


def _people(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the agreement of people with each other as cells: overall, by pair and by person."""
    if found is None:
        return None
    overall = [("Cohen's κ, mean of pairs", _cell(found["kappa"]))]
    overall += [(f"Krippendorff's α, {level}", _cell(value)) for level, value in found["alpha"].items() if value]
    pairs = [
        (f"{one['first']} and {one['second']}",
         [_cell(one["kappa"]), Cell(percent(one["agree"], 1)), Cell(f"{one['comparisons']:,}")])
        for one in found["pairs"]
    ]  # fmt: skip
    persons = [
        (one["name"], [Cell("–" if one["kappa"] is None else number(one["kappa"])), Cell(percent(one["ties"], 1)),
                       Cell(f"{one['comparisons']:,}"), Cell(f"{one['shared']:,}")])
        for one in found["people"]
    ]  # fmt: skip
    return {"overall": overall, "pairs": pairs, "persons": persons}


def _classes(people: dict[str, Any]) -> list[tuple[str, list[Cell]]]:
    """Return precision, recall and F1 for each class, and the mean F1."""
    found = [
        (f"People prefer {words}", [*(_share_or_none(one[key]) for key in ("precision", "recall", "f1")),
                                    Cell(f"{one['people']:,}"), Cell(f"{one['judge']:,}")])
        for name, words in CLASSES.items()
        if (one := people.get("classes", {}).get(name))
    ]  # fmt: skip
    mean = people.get("macro_f1")
    return [*found, ("Mean of these", [Cell("–"), Cell("–"), _share(mean), Cell("–"), Cell("–")])] if mean else found


def _share_or_none(measure: dict[str, Any]) -> Cell:
    return Cell("–") if measure["value"] is None else _share(measure)


def _calibration(view: View, found: dict[str, Any]) -> None:
    if not found:
        return
    view.errors = [("as the judge says", [_cell(found["before"][key]) for key in ("ece", "brier", "nll")])]
    view.charts = [_reliability("Reliability", found["reliability"])]
    for method in ("temperature", "isotonic"):
        if method in found:
            heat = found[method]["fitted"].get("temperature")
            name = f"temperature {number(heat)}" if heat is not None else method
            view.errors.append((name, [_cell(found[method]["after"][key]) for key in ("ece", "brier", "nll")]))
            view.charts.append(_reliability(f"After {method} scaling" if heat else f"After {method} regression",
                                            found[method]["reliability"]))  # fmt: skip


def _reliability(title: str, bins: Sequence[dict[str, float]]) -> Chart:
    points = [(100 * each["confidence"], 100 * each["accuracy"]) for each in bins]
    ideal = [(50.0, 50.0), (100.0, 100.0)]
    return chart(title, [("right", points), ("if it meant what it says", ideal)], "% right, by % sure", across="% sure")


def _tracks(*rows: tuple[str, str, dict[str, Any] | None, str]) -> list[Track]:
    found = []
    for what, note, measure, tone in rows:
        if measure and measure["value"] is not None:
            value = measure["value"]
            low, high = (value if measure[end] is None else measure[end] for end in ("low", "high"))
            counts = f"{measure['n']:,} in {measure['clusters']:,} prompts"
            found.append(Track("", tone, what, note, value, low, high, percent(value, 1), _ends(measure), counts))
    return found


def _from_half(measure: dict[str, Any] | None) -> dict[str, Any] | None:
    """A bias as the share it is the lead of."""
    if measure is None:
        return None
    ends = {key: None if measure[key] is None else 0.5 + measure[key] for key in ("value", "low", "high")}
    return measure | ends


def _cell(measure: dict[str, Any] | None) -> Cell:
    if not measure or measure["value"] is None:
        return Cell("–")
    return Cell(number(measure["value"]), interval(measure))


def _share(measure: dict[str, Any] | None) -> Cell:
    return Cell(percent(measure["value"], 1), _ends(measure)) if measure else Cell("–")


def _ends(measure: dict[str, Any]) -> str:
    """The interval of a share, as precise as the share itself: [88.5–97.5]."""
    low, high = measure["low"], measure["high"]
    return "" if low is None or high is None else f"[{100 * low:.1f}–{100 * high:.1f}]"


def _points(measure: dict[str, Any] | None) -> Cell:
    if not measure:
        return Cell("–")
    ends = [measure[end] for end in ("low", "high")]
    text = "" if None in ends else "[" + ", ".join(f"{100 * end:+.1f}" for end in ends) + "]"
    return Cell(f"{100 * measure['value']:+.1f}".replace("-", "−"), text.replace("-", "−"))


def _spent(found: dict[str, Any] | None) -> list[tuple[str, str]]:
    if not found:
        return []
    per = found["per_thousand"]
    rows = [("Cost", "unknown" if per["cost"] is None else f"{per['cost']:.2f} {found['currency'] or ''}".rstrip())]
    rows += [
        (name, f"{per[key]:,.0f}") for name, key in (("Tokens", "tokens"), ("Calls", "calls")) if per[key] is not None
    ]
    return rows + ([("Time", duration(per["seconds"]))] if per["seconds"] is not None else [])
