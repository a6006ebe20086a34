"""The documents of a text file, and JSON that holds no rows where rows are expected."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from alignment.errors import DataError, JsonError
from alignment.strict_json import parse

_TEXTS = frozenset("text prompt completion instruction input output question answer response chosen rejected".split())
END_OF_TEXT = "<|endoftext|>"


def documents(lines: Iterable[str], *, marked: bool) -> Iterator[tuple[int, str]]:
    """Yield documents with their first lines' numbers.

    Args:
        marked: whether they are parted by lines of only <|endoftext|>, which some line is; else by blank lines.
    """
    end = END_OF_TEXT if marked else ""
    document: list[str] = []
    for number, line in enumerate(itertools.chain(lines, [end]), start=1):
        if line.strip() != end:
            document.append(line)
            continue
        if any(kept.strip() for kept in document):
            yield number - len(document), "\n".join(document).strip("\n")
        document = []


def refuse_json(lines: list[str], name: str, *, begins: bool = False) -> None:
    """Refuse a text file that holds JSON: each line an object, or the whole file an object or an array of objects.

    Args:
        begins: `lines` are the first that are not blank, of which a bracket alone in the first begins JSON.

    Raises: DataError.
    """
    filled = [line for line in lines if line.strip()]
    if not filled or not filled[0].lstrip().startswith(("{", "[")):
        return
    if all(_is_rows(line) for line in filled[:100]):
        kind = "jsonl"
    elif _is_rows("\n".join(lines)) or (begins and filled[0].strip() in ("[", "{", "[{")):
        kind = "json"
    else:
        return
    raise DataError(
        f"{name} holds JSON, and a .txt file is read as plain text: keys and brackets would be trained. Rename it to "
        f".{kind}; if the JSON is the text to learn, write it under the key text of a .jsonl file."
    )


def _is_rows(text: str) -> bool:
    """Whether a text is a JSON object, or an array of objects."""
    try:
        value = parse(text)
    except JsonError:
        return False
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict) for one in value))


def refuse_columns(value: Any, name: str) -> None:
    """Refuse a file that is one object of columns, as `pandas.DataFrame.to_json` writes by default.

    Raises: DataError.
    """
    split = isinstance(value, dict) and value.keys() == {"columns", "index", "data"}
    if split or (isinstance(value, dict) and len(_TEXTS & value.keys()) > 1 and _are_columns([*value.values()])):
        raise DataError(
            f"{name} holds columns, not rows: write an object for each row, as pandas does with "
            "to_json(..., orient='records', lines=True)."
        )


def _are_columns(columns: list[Any]) -> bool:
    """Whether all columns are lists of one length, or objects with the same keys, and one of them holds only texts."""
    if all(isinstance(column, dict) for column in columns):
        return "0" in columns[0] and all(column.keys() == columns[0].keys() for column in columns)
    if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        return False
    return any(column and all(isinstance(one, str) for one in column) for column in columns)
