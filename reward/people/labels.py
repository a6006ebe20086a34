"""Turns people's labels into rows, one for each person and item, as training and the audit read them."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignment.data.rankings import pairs_from_ranks, ranking_to_json
from alignment.data.rows import Pair, Ranking, SingleVerdict
from alignment.run.files import write_jsonl
from reward.people.items import Ask, Item
from reward.people.label import COUNTED, GOOD, Label


def rankings(labels: list[Label], items: dict[str, Item]) -> list[Ranking]:
    """Return one ranking for each label of several answers, with the person, the seconds and the order shown."""
    return [
        _ranking(label, items[label.item])
        for label in labels
        if label.status in COUNTED and label.item in items and len(items[label.item].responses) > 1
    ]


def thumbs(labels: list[Label], items: dict[str, Item]) -> list[dict[str, Any]]:
    """Return a row for each label of one answer, in TRL's unpaired layout; "cannot say" has none."""
    known = [(label, items[label.item]) for label in labels if label.ranks is not None and label.item in items]
    return [
        {
            "prompt": item.prompt,
            "completion": item.responses[0],
            "label": label.ranks == [GOOD],
            "provenance": _provenance(label, item),
        }
        for label, item in known
        if len(item.responses) == 1
    ]


def rows_of(ask: Ask, labels: list[Label], items: dict[str, Item]) -> list[dict[str, Any]]:
    """Return the rows of `people.jsonl`, or of `thumbs.jsonl`."""
    if ask == "thumbs":
        return thumbs(labels, items)
    return [ranking_to_json(row) for row in rankings(labels, items)]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the file, whole or not at all."""
    write_jsonl(path, rows)


def _ranking(label: Label, item: Item) -> Ranking:
    return Ranking(item.prompt, item.responses, _pairs(label, item), _provenance(label, item))


def _provenance(label: Label, item: Item) -> dict[str, Any]:
    return {
        **item.provenance,
        "source": "person",
        "annotator": label.annotator,
        "judge": f"person:{label.annotator}",
        "prompt_hash": label.guidelines,
        "item": item.key,
        "seconds": round(label.seconds, 3),
        "labelled_at": label.labelled_at,
    }


def _pairs(label: Label, item: Item) -> list[Pair]:
    """Every pair of answers, with the order in which it was shown."""
    shown_at = {item.responses[index]: place for place, index in enumerate(label.shown)}
    places = [shown_at[response] for response in item.responses]
    count = len(item.responses)
    pairs = (
        pairs_from_ranks(label.ranks)
        if label.ranks is not None
        else [Pair(first, second, None, "abstain") for first, second in itertools.combinations(range(count), 2)]
    )
    return [_with_verdict(pair, places[pair.first], places[pair.second]) for pair in pairs]


def _with_verdict(pair: Pair, first: int, second: int) -> Pair:
    """Add the verdict to a pair whose answers were at these positions; equal texts have no verdict."""
    if first == second:
        return Pair(pair.first, pair.second, 0.5, "tie")
    swapped = second < first
    probability = None if pair.probability is None else 1 - pair.probability if swapped else pair.probability
    asked = SingleVerdict("swapped" if swapped else "first", 0, probability, pair.status, None)
    return replace(pair, verdicts=(asked,))
