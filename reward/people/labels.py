"""Turns people's labels into rankings: one row for each person and item, as training and the audit read them."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignment.data.rankings import pairs_from_ranks, ranking_to_json
from alignment.data.rows import Pair, Ranking, SingleVerdict
from alignment.run.files import write_jsonl
from reward.people.items import Item
from reward.people.label import COUNTED, Label


def rankings(labels: list[Label], items: dict[str, Item]) -> list[Ranking]:
    """Return one ranking for each label, with the person, the seconds and the order shown."""
    return [_ranking(label, items[label.item]) for label in labels if label.status in COUNTED and label.item in items]


def write_rankings(path: Path, rows: list[Ranking]) -> None:
    """Write `people.jsonl`, whole or not at all."""
    write_jsonl(path, [ranking_to_json(row) for row in rows])


def _ranking(label: Label, item: Item) -> Ranking:
    provenance: dict[str, Any] = {
        **item.provenance,
        "source": "person",
        "annotator": label.annotator,
        "judge": f"person:{label.annotator}",
        "prompt_hash": label.guidelines,
        "item": item.key,
        "seconds": round(label.seconds, 3),
        "labelled_at": label.labelled_at,
    }
    return Ranking(item.prompt, item.responses, _pairs(label, item), provenance)


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
