"""The types of columns as `datasets` declares them, found in the rows of JSONL files.

`datasets` takes the types of a JSONL data set from the first ten megabytes of its first split. A column that is null
there cannot be read in later rows, so a data set's card declares the types of all rows.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

JSON = "json"  # values of several types, or objects with different keys: `datasets.Json`
LONGEST = 10_000  # characters of a declared type
MOST_KEYS = 200  # of an object; those with more are mappings rather than records
_LEAST, _MOST = -(2**63), 2**63 - 1
# Texts that pyarrow reads as times where a whole file has no others; as JSON they stay texts.
_TIME = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d(:?\d\d(:?\d\d(\.\d*)?)?)?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII)
_TEXT, _TIMES = "string", "time"


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list; `inner` None: only empty lists, or lists of null."""

    inner: "Type"


@dataclass(frozen=True)
class Struct:
    """An object with these keys."""

    keys: Mapping[str, "Type"]


Type = str | ListOf | Struct | None  # None: null alone


@dataclass
class Features:
    """The types of the columns of each split."""

    splits: dict[str, dict[str, Type]] = field(default_factory=dict)

    def add(self, split: str, row: Mapping[str, Any]) -> None:
        """Take in the types of a row."""
        columns = self.splits.setdefault(split, {})
        for name, value in row.items():
            known = columns.get(name)
            if known != JSON and not (known == _TEXT and isinstance(value, str)):
                columns[name] = _merged(known, _type_of(value))

    def declared(self) -> list[dict[str, Any]]:
        """Return the types as the card of a data set has them: `dataset_info.features`."""
        columns: dict[str, Type] = {}
        for split in self.splits.values():
            for name, kind in split.items():
                columns[name] = _merged(columns.get(name), _without_times(kind))
        return [{"name": name, **_short(_declared(kind))} for name, kind in columns.items()]


def features_of(splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the types of the rows of some splits as the card of a data set has them."""
    found = Features()
    for split, rows in splits.items():
        for row in rows:
            found.add(split, row)
    return found.declared()


def _type_of(value: Any) -> Type:
    if value is None:
        return None
    if isinstance(value, str):
        return _TIMES if _TIME.fullmatch(value) else _TEXT
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if _LEAST <= value <= _MOST else "float64"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, dict):
        if not 0 < len(value) <= MOST_KEYS:
            return JSON
        return Struct({name: _type_of(one) for name, one in value.items()})
    inner: Type = None
    for one in value:
        inner = _merged(inner, _type_of(one))
    return ListOf(inner)


def _merged(one: Type, other: Type) -> Type:
    if one is None or one == other:
        return other
    if other is None:
        return one
    if isinstance(one, ListOf) and isinstance(other, ListOf):
        return ListOf(_merged(one.inner, other.inner))
    if isinstance(one, Struct) and isinstance(other, Struct) and one.keys.keys() == other.keys.keys():
        return Struct({name: _merged(kind, other.keys[name]) for name, kind in one.keys.items()})
    pair = {one, other} if isinstance(one, str) and isinstance(other, str) else set()
    return "float64" if pair == {"int64", "float64"} else _TEXT if pair == {_TEXT, _TIMES} else JSON


def _without_times(kind: Type) -> Type:
    if isinstance(kind, ListOf):
        return ListOf(_without_times(kind.inner))
    if isinstance(kind, Struct):
        return Struct({name: _without_times(one) for name, one in kind.keys.items()})
    return JSON if kind == _TIMES else kind


def _short(declared: dict[str, Any]) -> dict[str, Any]:
    """Return a type; of an object with very many keys that it is JSON, as loaders read a limited card."""
    return declared if len(json.dumps(declared)) <= LONGEST else {"dtype": JSON}


def _declared(kind: Type) -> dict[str, Any]:
    if isinstance(kind, ListOf):
        inner = _declared(kind.inner)
        return {"list": inner["dtype"] if list(inner) == ["dtype"] else inner.get("struct", inner)}
    if isinstance(kind, Struct):
        return {"struct": [{"name": name, **_declared(one)} for name, one in kind.keys.items()]}
    return {"dtype": kind or "null"}
