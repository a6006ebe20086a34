"""`alignment audit`: measures labels, prints the findings, and writes the requested files."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from alignment.data import ranking_to_json
from alignment.errors import AlignmentError, DataError, printable
from alignment.evaluate.statistics import Bootstrap
from alignment.manifest import MANIFEST
from alignment.report.charts import number
from alignment.report.wording import percent
from alignment.run.files import write_atomic, write_json, write_jsonl
from reward.audit.against import matches
from reward.audit.audit import audit
from reward.audit.calibration import Method, fit_matches
from reward.audit.findings import Finding, estimate, findings, points
from reward.audit.items import Judged, People, Reading, read_gold, read_labels
from reward.audit.page import CLASSES, page
from reward.audit.people import people_agreement, people_summary
from reward.audit.suggest import suggest

WIDTH = 110  # columns of the summary in words


@dataclass(frozen=True, slots=True)
class Outputs:
    """Paths of the output files; None: not written."""

    page: Path | None = None
    json: Path | None = None
    suggestions: Path | None = None
    calibrated: Path | None = None  # labels; the parameters of the map are written beside them


def run(
    labels: Sequence[Path],
    gold: Path | None,
    *,
    outputs: Outputs,
    reading: Reading | None = None,
    suggestions: int | None = None,
    calibrate: Method | None = None,
    how: Bootstrap | None = None,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Audit labels and write the requested files; returns each judge's numbers and findings.

    Args:
        gold: people's preferences, in place of the gold labels within recorded verdicts.
    Raises: AlignmentError if labels or gold cannot be read, no comparison of `gold` is among the labels, or a file
        cannot be written.
    """
    how = how or Bootstrap()
    judges, people = read_labels(labels, reading, given=gold)
    if gold is not None:
        given = read_gold(str(gold), reading)
        say(_matched(gold, given, judges))
        people.merge(given)
    if not judges and (suggestions is not None or calibrate is not None):
        option = "--suggest" if suggestions else "--calibrate"
        raise AlignmentError(f"{option} is for a judge's labels, and all of these are people's.")
    if len(judges) > 1 and (suggestions is not None or calibrate is not None):
        names, option = ", ".join(judge.name for judge in judges), "--suggest" if suggestions else "--calibrate"
        raise AlignmentError(f"{option} is for the labels of one judge, and these have {len(judges)}: {names}.")
    found = []
    for judge in judges:
        numbers = audit(judge, people, how)
        listed = findings(numbers)
        found.append(numbers | {"findings": [finding.as_json() for finding in listed]})
        say(summary(numbers, listed))
    among = people_agreement(people, how)
    if among is not None:
        say(people_summary(among))
    everything = {
        "labels": [str(path) for path in labels],
        "gold": str(gold) if gold else None,
        "confidence_level": how.level,
        "bootstrap_samples": how.samples,
        "judges": found,
        "people": among,
    }
    if outputs.json is not None:
        write_json(outputs.json, everything)
    if outputs.page is not None:
        write_atomic(outputs.page, page(found, str(gold) if gold else None, how.level, among))
        say(str(outputs.page))
    if outputs.calibrated is not None and calibrate is not None:
        say(_calibrated(judges[0], people, calibrate, outputs.calibrated))
    if outputs.suggestions is not None and suggestions is not None:
        say(_suggested(judges[0], people, suggestions, outputs.suggestions))
    return found


def _matched(gold: Path, given: People, judges: Sequence[Judged]) -> str:
    """Return how many comparisons of a file of votes are among the labels.

    Raises: DataError if none is.
    """
    labelled = {item.key for judge in judges for item in judge.items}
    count, matched = len(given.votes), len(given.votes.keys() & labelled)
    same = "prompt and both answers must be the same as in the labels"
    if not count:
        raise DataError(f"{gold}: has no decided comparison: no row prefers an answer.")
    if not matched:
        raise DataError(f"{gold}: none of its {count} decided comparisons is among the labels; {same}.")
    found = f"{gold}: {matched} of {count} comparisons are among the labels"
    return found if matched * 2 >= count else f"  !!  {found}, fewer than half; {same}."


def method_of(name: str | None) -> Method | None:
    """Return the calibration of that name.

    Raises: AlignmentError if there is none.
    """
    known: tuple[Method, ...] = get_args(Method)
    for method in known:
        if method == name:
            return method
    if name is None:
        return None
    raise AlignmentError(f"--calibrate {name} is not known; give {' or '.join(known)}.")


def beside(labels: Sequence[Path], name: str) -> Path:
    """Return where a file about labels goes by default: into their run's folder, else into the working folder."""
    first = labels[0] if labels[0].is_dir() else labels[0].parent
    return first / name if (first / MANIFEST).is_file() else Path(name)


def summary(numbers: dict[str, Any], listed: Sequence[Finding]) -> str:
    """Return an audit as text: the main numbers, then unhealthy findings, then healthy ones."""
    prompts = f"{numbers['comparisons']} comparisons of {numbers['prompts']} prompts"
    lines = [
        f"{printable(numbers['judge'])}: {prompts}",
        *(f"  {name:<31} {value}" for name, value in headline(numbers)),
    ]
    for finding in listed:
        mark = "  ok  " if finding.healthy else "  !!  "
        text = f"{finding.claim}: {finding.evidence.rstrip('.')}."
        lines.append(textwrap.fill(text, WIDTH, initial_indent=mark, subsequent_indent=" " * len(mark)))
    return "\n".join(lines)


def headline(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    """Return names and values of the available measures."""
    alone, people, spent = numbers["measures"], numbers["against"] or {}, numbers["spent"]
    shares = [
        ("coverage", alone["coverage"]),
        ("agreement of the two orders", alone["consistency"]),
        ("same position wins", alone["same_position"]),
        ("ties", alone["tie_rate"]),
        ("circular triads", alone["cyclic_triads"]),
        ("self-consistency", alone["self_consistency"]),
        ("mass on the verdict", alone["mass"]),
        ("accuracy", people.get("accuracy")),
        ("strict accuracy", people.get("accuracy_strict")),
        ("both orders correct", people.get("both_orders_correct")),
        ("accuracy of one order", people.get("accuracy_one_order")),
        ("accuracy where orders agree", people.get("accuracy_when_consistent")),
        ("one person, leave one out", people.get("human_ceiling")),
    ]
    found = [(name, estimate(measure)) for name, measure in shares if measure]
    for name, measure in (("position bias", alone["position_bias"]), ("length bias", alone["length_bias"]),
                          ("length bias beyond people's", people.get("length_bias_difference"))):  # fmt: skip
        if measure:
            found.append((name, points(measure)))
    for name, one in people.get("subsets", {}).items():
        if one["accuracy"]:
            found.append((f"accuracy, {printable(name)}", estimate(one["accuracy"])))
    for name, value in people.get("subset_means", {}).items():
        words = name.replace("_", " ").replace("f1", "F1")
        found.append((f"{words}, mean of subsets", number(value) if name == "kappa" else percent(value, 1)))
    for name, one in people.get("classes", {}).items():
        scores = ", ".join(
            f"{'F1' if key == 'f1' else key} {_share(one[key])}" for key in ("precision", "recall", "f1")
        )
        found.append((f"people prefer {CLASSES[name]}", f"{scores} ({one['people']} by people)"))
    if people.get("macro_f1"):
        found.append(("F1, mean of these", estimate(people["macro_f1"])))
    plain = [("Cohen's kappa", people.get("kappa")), ("Cohen's kappa, all labels", people.get("kappa_of_all"))]
    plain += [(f"Krippendorff's alpha, {level}", value) for level, value in people.get("alpha", {}).items()]
    plain += [(f"people's alpha, {level}", value) for level, value in people.get("people_alpha", {}).items()]
    calibrated = numbers["calibration"] or {}
    plain += [(key.upper() if key != "brier" else "Brier score", calibrated["before"][key])
              for key in ("ece", "brier", "nll") if calibrated]  # fmt: skip
    found += [(name, estimate(value, share=False)) for name, value in plain if value and value["value"] is not None]
    if spent:
        per = {key: value for key, value in spent["per_thousand"].items() if value is not None}
        found.append(("per 1,000 labels", ", ".join(_amount(key, value, spent) for key, value in per.items())))
    return found


def _share(measure: dict[str, Any]) -> str:
    return "none" if measure["value"] is None else estimate(measure)


def _amount(key: str, value: float, spent: dict[str, Any]) -> str:
    return f"{value:.2f} {spent['currency'] or ''}".rstrip() if key == "cost" else f"{value:,.0f} {key}"


def _calibrated(judge: Judged, people: People, method: Method, out: Path) -> str:
    fitted = fit_matches(matches(judge.items, people), method)
    write_jsonl(out, [ranking_to_json(ranking) for ranking in fitted.on(judge.rankings)])
    write_json(out.with_suffix(".json"), fitted.as_json())
    heat = fitted.parameters.get("temperature")
    how = f"{method} {number(heat)}" if heat is not None else method
    return f"{out}: labels calibrated ({how}, fitted on {fitted.comparisons} comparisons)"


def _suggested(judge: Judged, people: People, count: int, out: Path) -> str:
    rows = suggest(judge, people, count)
    write_jsonl(out, [ranking_to_json(row) for row in rows])
    short = f" (all available ones; {count} were requested)" if len(rows) < count else ""
    return f"{out}: {len(rows)} comparisons for people to check{short}"
