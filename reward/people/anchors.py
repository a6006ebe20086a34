"""Gold labels that anchor a mixture of labels, and warnings where agreement alone may mislead it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from alignment.data.splits import prompt_key
from alignment.errors import DataError, printable
from alignment.evaluate.statistics import wilson
from reward.audit.items import Item, Reading, read_gold
from reward.people.dawid_skene import FIRST, SECOND, TIE, Estimate, Integers, accuracy_on_gold, how_likely, told_apart
from reward.people.mixing import Gathered, Table

FALSE_ALARMS = 0.01  # share of labellers that err independently of which a warning follows all the same, at most
LOW = 0.6  # accuracy below which a labeller is hardly better than a coin


def anchored(table: Table, gathered: Sequence[Gathered], path: str, reading: Reading) -> Table:
    """Return the table with the truth of the pairs that a file of people's preferences decides.

    Prompts match regardless of case and spacing, and answers regardless of white space around them, as in an audit.

    Raises: DataError if the file does not exist, or none of its pairs is among the labels.
    """
    if not path.strip() or not Path(path).exists():  # else the path would be looked up on the Hub
        raise DataError(f"--gold {path}: does not exist. Give a file of people's preferences.")
    people = read_gold(path, reading)
    gold = np.full(len(table.pairs), -1, dtype=np.int64)
    for place, (prompt, (first, second)) in enumerate(table.pairs):
        group = gathered[prompt]
        item = Item(group.prompt, group.responses[first], group.responses[second], prompt_key(group.prompt), None, "ok",
                    (), prompt, (first, second))  # fmt: skip
        votes = people.on(item)
        if votes:
            side = np.sign(sum(votes.values()))
            gold[place] = FIRST if side > 0 else SECOND if side < 0 else TIE
    if not (gold >= 0).any():
        raise DataError(
            f"{path}: none of its {len(people.votes)} decided comparisons is among the labels; prompt and both answers "
            "must be the same as in the labels."
        )
    return replace(table, labels=replace(table.labels, gold=gold))


def on_gold(table: Table, level: float = 0.95) -> list[dict[str, Any] | None]:
    """Return each labeller's accuracy on the anchors with Wilson's interval; None without an anchor."""
    if table.labels.gold is None:
        return [None] * len(table.labellers)
    found: list[dict[str, Any] | None] = []
    for share, count in zip(*accuracy_on_gold(table.labels), strict=True):
        if not count:
            found.append(None)
            continue
        low, high = wilson(float(share) * int(count), int(count), level)
        found.append({"pairs": int(count), "accuracy": float(share), "interval": [low, high]})
    return found


def warnings_of(table: Table, found: Estimate, without_gold: Estimate | None, *, smoothing: float) -> list[str]:
    """Return where the estimate may take common errors for the truth.

    Of labellers that err independently, and are right in `LOW` of the pairs or more, a share of at most `FALSE_ALARMS`
    is named.

    Args:
        without_gold: the estimate from agreement alone, if there are anchors. smoothing: of both estimates.
    """
    if without_gold is not None:
        return _contradicted(table, found, without_gold, smoothing)
    known = told_apart(table.labels)
    lines = []
    for number in np.flatnonzero(known):
        value = float(found.accuracy[number])
        if value >= LOW or how_likely(table.labels, found, int(number), LOW, smoothing=smoothing) >= FALSE_ALARMS:
            continue
        others = _others(table, found, known, int(number))
        lines.append(
            f"{printable(table.labellers[number])} is rated {100 * value:.1f} %, hardly better than a coin or worse: "
            f"it contradicts {others}. Either it errs, or the others err on the same items. Agreement does not tell "
            "which, and the estimate sides with the majority, so it may be inverted. Give people's labels of some "
            "pairs with --gold."
        )
    return lines


def _others(table: Table, found: Estimate, known: Any, number: int) -> str:
    best = [place for place in np.argsort(-found.accuracy) if known[place] and place != number][:3]
    return ", ".join(f"{printable(table.labellers[place])} ({100 * found.accuracy[place]:.1f} %)" for place in best)


def _contradicted(table: Table, found: Estimate, without_gold: Estimate, smoothing: float) -> list[str]:
    """Return the labellers whose labels, by agreement alone, rule out the interval of their accuracy on gold."""
    lines = []
    agreeing = replace(table.labels, gold=None)
    known = told_apart(agreeing)
    for number, anchor in enumerate(on_gold(table, 1 - FALSE_ALARMS)):
        alone = float(without_gold.accuracy[number])
        if anchor is None or not known[number]:
            continue
        nearest = float(np.clip(alone, *anchor["interval"]))
        if nearest == alone:
            continue
        if how_likely(agreeing, without_gold, number, nearest, smoothing=smoothing) >= FALSE_ALARMS:
            continue
        lines.append(
            f"{printable(table.labellers[number])} would be rated {100 * alone:.1f} % by agreement alone, and is right "
            f"in {100 * anchor['accuracy']:.1f} % of {anchor['pairs']} gold pairs: labellers err on the same items. "
            f"With gold it is rated {100 * float(found.accuracy[number]):.1f} %. Labellers that err together are still "
            "weighted as if they erred apart."
        )
    return lines


def gold_pairs(gold: Integers | None) -> int:
    """Return the number of anchors."""
    return 0 if gold is None else int((gold >= 0).sum())
