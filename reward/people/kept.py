"""Reads and checks rows of the store, which may be damaged or edited."""

import json
import math
from typing import Any, get_args

from reward.people.items import Item, key_of
from reward.people.label import COUNTED, Label, LabelStatus, highest_rank


class Damaged(ValueError):
    """The fault of one row; the store adds its position."""


def item_of(key: Any, text: Any) -> Item:
    """Read a row of `people_items`.

    Raises: Damaged where it is no item, or its texts are not those that the key was made of.
    """
    kept = _loaded(text, "item")
    if not isinstance(kept, dict) or kept.keys() != {"prompt", "responses", "provenance"}:
        raise Damaged("item is not an object of prompt, responses and provenance")
    responses, provenance = kept["responses"], kept["provenance"]
    if not isinstance(responses, list) or not all(isinstance(response, str) for response in responses):
        raise Damaged("its responses are not a list of texts")
    if not isinstance(provenance, dict):
        raise Damaged("its provenance is not an object")
    if key != key_of(kept["prompt"], responses):
        raise Damaged("its prompt and responses do not match its key")
    return Item(key, kept["prompt"], responses, provenance)


def label_of(row: tuple[Any, ...], items: dict[str, Item]) -> Label:
    """Read a row of `people`: id, annotator, item, status, ranks, shown, guidelines, seconds, labelled_at.

    Raises: Damaged where a column holds anything that no label has.
    """
    number, annotator, key, status, ranks_text, shown_text, guidelines, seconds, labelled_at = row
    item = items.get(key) if isinstance(key, str) else None
    if item is None:
        raise Damaged("it is of an item that is not in the table people_items")
    if not isinstance(annotator, str) or not annotator.isprintable():
        raise Damaged("annotator is not a name")
    if status not in get_args(LabelStatus):
        raise Damaged(f"status is {str(status)[:40]!r}")
    if not isinstance(guidelines, str):
        raise Damaged("guidelines is not text")
    for name, value in (("seconds", seconds), ("labelled_at", labelled_at)):
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise Damaged(f"{name} is {str(value)[:40]!r}, not a number of 0 or more")
    shown = _loaded(shown_text, "shown")
    if not _whole_numbers(shown) or sorted(shown) != sorted(item.distinct):
        raise Damaged("shown is not each of the item's different answers once")
    ranks = None if ranks_text is None else _loaded(ranks_text, "ranks")
    _require_ranks(status, ranks, item)
    return Label(annotator, key, status, ranks, shown, guidelines, seconds, labelled_at, number)


def _require_ranks(status: LabelStatus, ranks: Any, item: Item) -> None:
    if status not in COUNTED or status == "abstain":
        if ranks is not None:
            raise Damaged(f"it has ranks with the status {status}")
        return
    count = len(item.responses)
    most = highest_rank(count)
    if not _whole_numbers(ranks) or len(ranks) != count or not all(1 <= rank <= most for rank in ranks):
        raise Damaged(f"ranks are not {count} whole numbers from 1 to {most}")
    if (status == "tie") != (count > 1 and len(set(ranks)) == 1):
        raise Damaged(f"its ranks do not agree with the status {status}")


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in value)


def _loaded(text: Any, what: str) -> Any:
    if not isinstance(text, str):
        raise Damaged(f"{what} is not text")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Damaged(f"{what} is not JSON") from None
