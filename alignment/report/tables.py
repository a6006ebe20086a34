"""The results of an evaluation for the page: claims, intervals and numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.evaluate.tasks.table import task_lines
from alignment.report.charts import number
from alignment.report.curves import is_number
from alignment.report.reading import Run
from alignment.report.stages import judge_names, paths_of, run_of
from alignment.report.wording import interval, label, outcome, percent, share_interval, verdict

TONES = ("c1", "c2", "c3", "c4", "c5")  # candidates' colours in order; see style.css

# Key in results.json and its details, heading, unit, and whether it is a share.
COLUMNS = (
    ("reward_score", "Reward score", "reward model, mean", False),
    ("kl", "KL", "nats per answer", False),
    ("answer_tokens", "Length", "tokens per answer", False),
    ("distinct_answers", "Distinct answers", "share of all answers", True),
    ("perplexity", "Perplexity", "text outside the domain", False),
    ("forgetting", "Forgetting", "largest perplexity ratio to the baseline, outside the domain", False),
)


@dataclass(frozen=True, slots=True)
class Track:
    """A share with its interval, to be drawn as a dot and a bar on a line from 0 to 1."""

    who: str
    tone: str
    what: str  # the judge
    note: str  # beside the judge: its part in training
    value: float
    low: float
    high: float
    text: str  # 83%
    interval: str  # [78–88]
    counts: str  # 166 wins · 12 ties · 22 losses


@dataclass(frozen=True, slots=True)
class Cell:
    """A number and its interval."""

    text: str
    interval: str = ""


@dataclass(frozen=True, slots=True)
class Board:
    """A leaderboard, ready for the page."""

    title: str
    about: str
    rows: list[tuple[str, str, list[Cell]]] = field(default_factory=list)  # policy, tone, cells
    problem: str = ""


@dataclass(frozen=True, slots=True)
class TaskLine:
    """One policy's score on one metric of a task of lm-eval."""

    task: str
    metric: str
    documents: str
    who: str
    tone: str
    score: Cell
    difference: Cell  # from the baseline, paired by document


@dataclass
class Evaluation:
    """One evaluation, ready for the page."""

    name: str
    baseline: str
    prompts: int | None
    level: str
    claims: list[tuple[str, str, str, str]] = field(default_factory=list)  # outcome, tone, claim, evidence
    headline_judge: str = ""
    tracks: list[Track] = field(default_factory=list)
    columns: list[tuple[str, str]] = field(default_factory=list)
    rows: list[tuple[str, str, list[Cell]]] = field(default_factory=list)  # policy, tone, cells
    tasks: list[TaskLine] = field(default_factory=list)
    accuracy: list[Track] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    tones: dict[str, str] = field(default_factory=dict)
    boards: list[Board] = field(default_factory=list)


def evaluation_of(run: Run, training_judges: Sequence[str]) -> Evaluation:
    """Lay out results.json.

    Args:
        training_judges: names of the judges whose labels the policies learned from.
    """
    results = run.results
    baseline = str(results.get("baseline", "baseline"))
    rates = {str(who): by for who, by in _dict(results.get("win_rate")).items() if isinstance(by, dict)}
    named = results.get("candidates")
    candidates = [str(who) for who in (named if isinstance(named, list) else rates) if str(who) != baseline]
    tones = {baseline: "baseline"} | {who: TONES[i % len(TONES)] for i, who in enumerate(candidates)}
    level = results.get("confidence_level")
    found = Evaluation(run.name, label(baseline), results.get("prompts"), percent(level) if is_number(level) else "95%")
    found.tones = tones
    judges = list(dict.fromkeys(judge for by in rates.values() for judge in by))
    # Judges that were not used in training come first: they are better evidence.
    judges.sort(key=lambda judge: judge in training_judges)
    found.headline_judge = judges[0] if judges else ""
    for who in candidates:
        for judge in judges:
            rate = _estimate(rates.get(who, {}).get(judge))
            if not rate:
                continue
            if judge == found.headline_judge:
                found.claims.append((outcome(rate), tones[who], *verdict(who, baseline, rate)))
            note = "gave the training labels" if judge in training_judges else ""
            track = _track(label(who), tones[who], str(judge), note, rate)
            if track is None:
                found.problems.append(f"{judge} gave no verdict on {who}: every question failed")
            else:
                found.tracks.append(track)
            found.problems += _coverage(who, str(judge), rate)
    _numbers(found, results, [baseline, *candidates])
    found.tasks = list(_task_lines(_dict(results.get("tasks")), tones))
    for judge, value in _dict(_detail(results, "reward_agreement")).items():
        track = _track("", "reward", f"against {judge}", "pairs of the baseline's answers", _estimate(value))
        if track is not None:
            found.accuracy.append(track)
    return found


def reward_accuracy(run: Run, runs: Sequence[Run]) -> list[Track]:
    """Return the held-out accuracy that the reward stage measured against its labels."""
    results = _dict(run.manifest.get("results"))
    rate = {"value": results.get("reward_accuracy"), "low": results.get("reward_accuracy_low"),
            "high": results.get("reward_accuracy_high"), "n": results.get("reward_pairs_decided")}  # fmt: skip
    sources = [run_of(path, runs) for path in paths_of(run, "eval_datasets") or paths_of(run, "datasets")]
    judges = [name for source in sources if source is not None for name in judge_names(source)[:1]]
    what = f"against {', '.join(dict.fromkeys(judges))}" if judges else "against the held-out labels"
    track = _track("", "reward", what, "measured by the reward stage", _estimate(rate))
    return [track] if track is not None else []


def _numbers(found: Evaluation, results: dict[str, Any], policies: Sequence[str]) -> None:
    details = {key: _dict(_detail(results, key)) for key, _, _, _ in COLUMNS}
    shown = [column for column in COLUMNS if details[column[0]]]
    found.columns = [(title, unit) for _, title, unit, _ in shown]
    for who in policies:
        cells = []
        for key, _, _, is_share in shown:
            value = details[key].get(who)
            if key == "kl" and who == policies[0] and value is None:
                cells.append(Cell("0", "by definition"))
            else:
                cells.append(_cell(value, is_share))
        found.rows.append((label(who), found.tones[who], cells))


def _task_lines(tasks: dict[str, Any], tones: dict[str, str]) -> Iterator[TaskLine]:
    for task, metric, numbers in task_lines(tasks):
        policies, differences = _dict(numbers.get("policies")), _dict(numbers.get("differences"))
        for place, (who, score) in enumerate(policies.items()):
            count = _estimate(score).get("n")
            documents = f"{count:,}" if place == 0 and is_number(count) else ""
            names = (task, metric) if place == 0 else ("", "")
            change = _estimate(differences.get(who))
            value = change.get("value")
            signed = f"{'+' if value >= 0 else '−'}{number(abs(value))}" if is_number(value) else ""
            yield TaskLine(
                *names, documents, label(who), tones.get(who, ""), _cell(score, False), Cell(signed, interval(change))
            )


def _cell(value: object, is_share: bool) -> Cell:
    found = _estimate(value)
    middle = found.get("value")
    if not is_number(middle):
        return Cell("–")
    if is_share:
        counts = f"{found['unique']} of {found['n']}" if "unique" in found and "n" in found else ""
        return Cell(percent(middle), counts)
    return Cell(number(middle), interval(found))


def _track(who: str, tone: str, what: str, note: str, rate: dict[str, Any]) -> Track | None:
    value = rate.get("value")
    if not is_number(value):
        return None
    low, high = (value if rate[end] is None else rate[end] for end in ("low", "high"))
    counts = [f"{rate[key]} {key}" for key in ("wins", "ties", "losses") if key in rate]
    if not counts and is_number(rate.get("n")):
        counts = [f"{rate['n']} pairs"]
    return Track(who, tone, what, note, value, low, high, percent(value), share_interval(rate), " · ".join(counts))


def _coverage(who: str, judge: str, rate: dict[str, Any]) -> list[str]:
    coverage = rate.get("coverage")
    if not is_number(coverage) or coverage >= 1:
        return []
    failed = {k: v for k, v in _dict(rate.get("statuses")).items() if k not in ("ok", "tie")}
    why = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in failed.items())
    return [
        f"{judge} judged {percent(coverage, 1)} of the pairs of {who}; the others are not counted ({why or 'failed'})"
    ]


def _detail(results: dict[str, Any], key: str) -> object:
    return _dict(results.get("details")).get(key) or results.get(key)


def _estimate(value: object) -> dict[str, Any]:
    """Take a plain number or a mapping; `value`, `low` and `high` come out as finite numbers or None."""
    found = value if isinstance(value, dict) else {} if value is None else {"value": value}
    return found and found | {
        key: found[key] if is_number(found.get(key)) else None for key in ("value", "low", "high")
    }


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
