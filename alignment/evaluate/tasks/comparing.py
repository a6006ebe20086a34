"""Scores of policies on tasks, and each candidate's difference from the baseline, paired by document."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.errors import AlignmentError
from alignment.evaluate.statistics import Bootstrap, Interval, share_interval, sums_interval
from alignment.evaluate.tasks.loading import LoadedTask
from alignment.evaluate.tasks.running import Sample, TaskAnswers, TaskRuns

SLOW = ("bleu", "chrf", "ter")  # metrics of whole corpora, which lm-eval too resamples a hundred times
SLOW_SAMPLES = 100
Aggregate = Callable[[Sequence[Any]], float]


@dataclass(frozen=True, slots=True)
class Scores:
    """One metric of one policy: what each document contributes."""

    items: list[Any]  # as the task's metric returns them
    sums: NDArray[np.float64] | None  # (documents, 2): numerator and denominator; None: not a mean
    value: float  # lm-eval's own


def compare_tasks(runs: TaskRuns, baseline: str, candidates: Sequence[str], how: Bootstrap) -> dict[str, Any]:
    """Return, by entry of `tasks`, each metric with every policy's score and each candidate's paired difference.

    A score is lm-eval's, with an interval that resamples documents; that of a difference resamples pairs of answers to
    one document. In a group, all answers of one task are resampled together: section 2.2 of
    https://arxiv.org/abs/2411.00640. An interval is None where resampling cannot vary.
    """
    return {one.entry.label: _entry(one, runs, baseline, candidates, how) for one in runs.loaded}


def _entry(one: LoadedTask, runs: TaskRuns, baseline: str, candidates: Sequence[str], how: Bootstrap) -> dict[str, Any]:
    label = one.entry.label
    by_policy = {name: runs.answers[name][label] for name in (baseline, *candidates)}
    found: dict[str, Any] = {
        "task": one.entry.task,
        "apply_chat_template": one.entry.apply_chat_template,
        "limit": one.entry.limit,
        "cut_prompts": {name: answers.cut for name, answers in by_policy.items()},
        "groups": {name: _group(group, one, by_policy, baseline, how) for name, group in one.groups.items()},
        "tasks": {},
    }
    for name, task in one.tasks.items():
        metrics = {
            key: _compared(
                {who: _scores(task, name, key, answers) for who, answers in by_policy.items()},
                baseline,
                how,
                task.aggregation().get(key[0]),
                key[0],
            )
            | {"higher_is_better": bool(by_policy[baseline].higher_is_better[name].get(key[0], True))}
            for key in _metrics(name, by_policy[baseline])
        }
        found["tasks"][name] = {
            "version": task.VERSION,
            "num_fewshot": task.config.num_fewshot,
            "documents": len({sample["doc_id"] for sample in by_policy[baseline].samples[name]}),
            "metrics": {_shown(key): numbers for key, numbers in metrics.items()},
        }
    return found


def _metrics(task: str, answers: TaskAnswers) -> list[tuple[str, str]]:
    """Return the metrics of a task with their filters."""
    keys = ((metric, sample["filter"]) for sample in answers.samples[task] for metric in sample["metrics"])
    return [key for key in dict.fromkeys(keys) if f"{key[0]},{key[1]}" in answers.values[task]]


def _shown(key: tuple[str, str]) -> str:
    return key[0] if key[1] == "none" else f"{key[0]},{key[1]}"


def _records(task: str, key: tuple[str, str], answers: TaskAnswers) -> list[Sample]:
    rows = [sample for sample in answers.samples[task] if sample["filter"] == key[1] and key[0] in sample]
    return sorted(rows, key=lambda sample: int(sample["doc_id"]))


def _scores(task: Any, name: str, key: tuple[str, str], answers: TaskAnswers) -> Scores:
    items = [sample[key[0]] for sample in _records(name, key, answers)]
    value = float(answers.values[name][f"{key[0]},{key[1]}"])
    sums = _as_sums(items)
    if sums is not None and not math.isclose(sums[:, 0].sum() / sums[:, 1].sum(), value, rel_tol=1e-9, abs_tol=1e-12):
        sums = None  # the task aggregates in another way
    return Scores(items, sums, value)


def _as_sums(items: Sequence[Any]) -> NDArray[np.float64] | None:
    """Return numerators and denominators of numbers, or of lists of numbers whose values all count alike."""
    lists = [one if isinstance(one, list) else [one] for one in items]
    if not all(isinstance(value, int | float | np.number | np.bool_) for one in lists for value in one):
        return None
    sums = np.array([[float(sum(one)), len(one)] for one in lists], dtype=np.float64).reshape(-1, 2)
    return sums if sums[:, 1].sum() else None


def _compared(
    scores: Mapping[str, Scores], baseline: str, how: Bootstrap, aggregate: Aggregate | None, metric: str
) -> dict[str, Any]:
    rows = range(len(scores[baseline].items))
    if any(len(one.items) != len(rows) for one in scores.values()):
        raise AlignmentError(f"policies answered different documents of a task (metric {metric}); evaluate anew.")
    found: dict[str, Any] = {"policies": {}, "differences": {}}
    for who, one in scores.items():
        interval = _interval(one, rows, how) if one.sums is not None else _drawn([one], how, aggregate, metric)
        found["policies"][who] = interval.as_json()
        if who == baseline:
            continue
        theirs = scores[baseline]
        if one.sums is not None and theirs.sums is not None:
            difference = _difference(one.sums, theirs.sums, rows, how)
        else:
            difference = _drawn([one, theirs], how, aggregate, metric)
        found["differences"][who] = difference.as_json()
    return found


def _interval(one: Scores, clusters: Sequence[Hashable], how: Bootstrap) -> Interval:
    assert one.sums is not None
    shares = one.sums[:, 0]
    if (one.sums[:, 1] == 1).all() and ((shares >= 0) & (shares <= 1)).all():
        return share_interval(shares, clusters, how)
    return sums_interval(one.sums, clusters, lambda sums: sums[:, 0] / sums[:, 1], how)


def _difference(
    mine: NDArray[np.float64], theirs: NDArray[np.float64], clusters: Sequence[Hashable], how: Bootstrap
) -> Interval:
    both = np.concatenate([mine, theirs], axis=1)
    return sums_interval(both, clusters, lambda sums: sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3], how)


def _drawn(scores: Sequence[Scores], how: Bootstrap, aggregate: Aggregate | None, metric: str) -> Interval:
    """A score that is no mean, or the difference of two, with an interval over documents drawn with replacement."""
    value = scores[0].value - (scores[1].value if len(scores) > 1 else 0.0)
    count = len(scores[0].items)
    if aggregate is None or count < 2:
        return Interval(value, math.nan, math.nan, count, count)
    generator = np.random.default_rng(how.seed)
    drawn = []
    for _ in range(SLOW_SAMPLES if metric in SLOW else how.samples):
        places = generator.integers(0, count, count)
        parts = [float(aggregate([one.items[place] for place in places])) for one in scores]
        drawn.append(parts[0] - (parts[1] if len(parts) > 1 else 0.0))
    if np.ptp(drawn) == 0:
        return Interval(value, math.nan, math.nan, count, count)
    low, high = np.quantile(drawn, [(1 - how.level) / 2, (1 + how.level) / 2])
    return Interval(value, float(low), float(high), count, count)


def _group(
    group: Any, one: LoadedTask, by_policy: Mapping[str, TaskAnswers], baseline: str, how: Bootstrap
) -> dict[str, Any]:
    """Return the metrics that a group aggregates, over its tasks as clusters."""
    names = [task.task_name for task in group.get_all_tasks()]
    found: dict[str, Any] = {}
    for wanted in group.aggregate_metric_list or []:
        values = by_policy[baseline].values.get(group.name, {})
        keys = [(wanted.metric, key.partition(",")[2]) for key in values if key.partition(",")[0] == wanted.metric]
        for key in keys:
            scores = {
                who: _group_scores(names, key, one, answers, group.name, wanted.weight_by_size)
                for who, answers in by_policy.items()
            }
            clusters = _clusters(names, key, by_policy[baseline], wanted.weight_by_size)
            found[_shown(key)] = _compared_in_group(scores, clusters, baseline, how) | {
                "higher_is_better": bool(by_policy[baseline].higher_is_better[names[0]].get(key[0], True))
            }
    return {"tasks": names, "metrics": found}


def _clusters(names: Sequence[str], key: tuple[str, str], answers: TaskAnswers, by_size: bool) -> list[Hashable]:
    if not by_size:
        return list(names)
    rows = [(name, place) for name in names for place, _ in enumerate(_records(name, key, answers))]
    return [name for name, _ in rows] if len(names) > 1 else list(rows)


def _group_scores(
    names: Sequence[str], key: tuple[str, str], one: LoadedTask, answers: TaskAnswers, group: str, by_size: bool
) -> Scores:
    parts = [_scores(one.tasks[name], name, key, answers) for name in names]
    value = float(answers.values[group][f"{key[0]},{key[1]}"])
    items = [item for part in parts for item in part.items]
    if any(part.sums is None or not (part.sums[:, 1] == 1).all() for part in parts):
        return Scores(items, None, value)
    tables = [part.sums for part in parts if part.sums is not None]
    sums = np.concatenate(tables) if by_size else np.array([[table[:, 0].mean(), 1.0] for table in tables])
    return Scores(items, sums, value)


def _compared_in_group(
    scores: Mapping[str, Scores], clusters: Sequence[Hashable], baseline: str, how: Bootstrap
) -> dict[str, Any]:
    found: dict[str, Any] = {"policies": {}, "differences": {}}
    theirs = scores[baseline]
    for who, one in scores.items():
        plain = Interval(one.value, math.nan, math.nan, len(one.items), len(set(clusters)))
        found["policies"][who] = (_interval(one, clusters, how) if one.sums is not None else plain).as_json()
        if who == baseline:
            continue
        if one.sums is not None and theirs.sums is not None:
            difference = _difference(one.sums, theirs.sums, clusters, how)
        else:
            difference = Interval(one.value - theirs.value, math.nan, math.nan, len(one.items), len(set(clusters)))
        found["differences"][who] = difference.as_json()
    return found
