"""Tasks of Label Studio's JSON export: the results of its `Pairwise` and `Ranker` tags.

Layout: https://labelstud.io/guide/export, https://labelstud.io/tags/pairwise and https://labelstud.io/tags/ranker.
"""

import itertools
from collections.abc import Mapping
from typing import Any

from alignment.data.fields import BadRow, checked, kind_of, text_of
from alignment.data.keys import refuse_unread_of
from alignment.data.opinions import Opinions, Row, field_of, is_prompt, is_text, prompt_among, same_end
from alignment.data.rows import Pair, Ranking, SingleVerdict
from alignment.strict_json import shown

KINDS = ("pairwise", "ranker")
_ANNOTATION = ("completed_by", "result", "was_cancelled")
_NOTES = ("prediction", "updated_by", "last_created_by", "last_action", "unique_id", "import_id", "draft_created_at")
_RESULT = ("type", "value", "to_name")
_RESULT_NOTES = ("from_name", "origin", "id", "meta")


def is_label_studio(row: Row) -> bool:
    """Whether a row is a task of Label Studio."""
    return isinstance(row.get("data"), dict) and isinstance(row.get("annotations"), list)


def label_studio(row: Row) -> list[Ranking]:
    """Read one ranking for each annotation; predictions are left out.

    A skipped task, or one submitted without a choice, becomes a comparison without a verdict.
    """
    data, annotations = row.get("data"), row.get("annotations")
    if not isinstance(data, dict):
        raise BadRow(f"'data' is {kind_of(data)}, not an object of texts")
    if not isinstance(annotations, list) or not all(
        isinstance(one, dict) and isinstance(one.get("result") or [], list) for one in annotations
    ):
        raise BadRow("'annotations' is not a list of objects with a list of results")
    for one in annotations:
        refuse_unread_of(one, "an annotation", _ANNOTATION, _NOTES)
    given = [(_annotator(one), _result_of(one)) for one in annotations]
    results = [result for _, result in given if result is not None]
    if not results:
        if any(one.get("result") and not one.get("was_cancelled") for one in annotations):
            raise BadRow(f"none of the annotations holds a result of the type {' or '.join(KINDS)}")
        return []
    kinds = {result["type"] for result in results}
    if len(kinds) > 1:
        raise BadRow("the annotations mix pairwise and ranker results")
    read = _pairwise if kinds == {"pairwise"} else _ranker
    return read(data, given, results[0]).rankings({"record": checked(row.get("id"), "id")})


def _annotator(annotation: Row) -> str:
    person = annotation.get("completed_by")
    if isinstance(person, dict):
        person = person.get("email") or person.get("id")
    return "unknown" if person is None else str(person)


def _result_of(annotation: Row) -> Row | None:
    """Return the result that compares; None if the person skipped the task or chose nothing."""
    if annotation.get("was_cancelled"):
        return None
    results = annotation.get("result") or []
    found = [one for one in results if isinstance(one, dict) and one.get("type") in KINDS]
    if len(found) > 1:
        raise BadRow(f"an annotation holds {len(found)} results that compare; expected one")
    if found and not isinstance(found[0].get("value"), dict):
        raise BadRow("a result's 'value' is not an object")
    if found:
        refuse_unread_of(found[0], "a result", _RESULT, _RESULT_NOTES)
        refuse_unread_of(found[0]["value"], "a result's 'value'", ("selected", "ranker"))
    return found[0] if found else None


def _pairwise(data: Row, given: list[tuple[str, Row | None]], sample: Row) -> Opinions:
    """Return the two names in `to_name`; the first was shown on the left."""
    names = sample.get("to_name")
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
    if not isinstance(names, list) or len(names) != 2 or not all(isinstance(name, str) for name in names):
        raise BadRow(
            f"'to_name' of a pairwise result is {shown(sample.get('to_name'))}; expected the names of two texts"
        )
    texts = {key: value for key, value in data.items() if is_text(value) and not is_prompt(key)}
    answers = [found for name in names if (found := field_of(name, texts) or same_end(name, texts)) is not None]
    if len(set(answers)) < 2:
        raise BadRow(
            f"'to_name' names {' and '.join(names)}, which are ambiguous among the data's {', '.join(data)}; use the "
            "names of the data's keys in the tags"
        )
    opinions = Opinions(prompt_among(data, answers), [text_of(data, name) for name in answers])
    for person, result in given:
        if result is not None and result.get("to_name") != sample.get("to_name"):
            raise BadRow("the annotations compare different texts")
        selected = None if result is None else result["value"].get("selected")
        if selected not in ("left", "right", None):
            raise BadRow(f"a pairwise result has selected {shown(selected)}; known are left and right")
        if selected is None:
            opinions.said.append((person, None))
            continue
        probability = float(selected == "left")
        asked = SingleVerdict("first", 0, probability, "ok")
        opinions.said.append((person, [Pair(0, 1, probability, verdicts=(asked,))]))
    return opinions


def _ranker(data: Row, given: list[tuple[str, Row | None]], _: Row) -> Opinions:
    """Return ids in the order that a person gave them; buckets have no order, so pairs are within one bucket."""
    lists = [key for key, value in data.items() if isinstance(value, list) and value and all(map(_is_item, value))]
    if len(lists) != 1:
        raise BadRow(f"expected one list of items with id and body or title in 'data'; found {len(lists)}")
    items = {str(item["id"]): item.get("body") or item.get("title") for item in data[lists[0]]}
    if len(items) < len(data[lists[0]]):
        raise BadRow(f"'{lists[0]}' has two items of one id")
    places = {key: place for place, key in enumerate(items)}
    opinions = Opinions(prompt_among(data, lists), [text_of(items, key) for key in items])
    for person, result in given:
        buckets = [] if result is None else _buckets(result["value"].get("ranker"))
        if not {key for keys in buckets for key in keys} <= set(items):
            raise BadRow(f"a ranker result names items that '{lists[0]}' does not have")
        pairs = [
            Pair(min(above, below), max(above, below), float(above < below))
            for bucket in buckets
            for above, below in itertools.combinations([places[key] for key in bucket], 2)
        ]
        opinions.said.append((person, sorted(pairs, key=lambda pair: (pair.first, pair.second)) or None))
    return opinions


def _buckets(value: Any) -> list[list[str]]:
    """Return the lists of ids that a person ordered; "_" holds the ids that were not moved."""
    buckets = [value] if isinstance(value, list) else value
    if isinstance(buckets, Mapping):
        buckets = [keys for name, keys in buckets.items() if name != "_"]
    if not isinstance(buckets, list) or not all(isinstance(keys, list) for keys in buckets):
        raise BadRow("a ranker result is neither a list of ids nor lists of ids by bucket")
    named = [[str(key) for key in keys] for keys in buckets]
    everything = [key for keys in named for key in keys]
    if len(set(everything)) < len(everything):
        raise BadRow("a ranker result names an item twice")
    return named


def _is_item(value: Any) -> bool:
    return isinstance(value, dict) and "id" in value and isinstance(value.get("body") or value.get("title"), str)
