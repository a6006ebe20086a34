"""Where each part of a row comes from: the keys of the row as its file holds it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alignment.data.detection import decoded
from alignment.data.rows import Demonstration, Prompt
from alignment.data.sources import read_entry
from alignment.preview.rows import Part, Row

if TYPE_CHECKING:
    from alignment.config.schema import DatasetEntry

SHORTEST = 3  # characters of a text that is looked for inside another


def parts_of(row: Demonstration) -> list[Part]:
    """Return the parts of a demonstration."""
    if isinstance(row.prompt, str):
        found = [Part("prompt", row.prompt), Part("completion", row.completion)]
        return [part for part in found if part.text]
    tools = [Part("tools", row.tools)] if row.tools else []
    return tools + [_of_message(message) for message in row.conversation()]


def parts_of_prompt(prompt: Prompt) -> list[Part]:
    """Return the parts of a prompt."""
    return [Part("prompt", prompt)] if isinstance(prompt, str) else [_of_message(message) for message in prompt]


def _of_message(message: dict[str, Any]) -> Part:
    return Part(str(message["role"]), str(message["content"]))


def locate(rows: Sequence[Row], entries: "Iterable[DatasetEntry]") -> None:
    """Find the columns that hold the rows' parts; the files are read once more, for these rows alone."""
    wanted = {row.source for row in rows}
    raw: dict[str, tuple[Any, dict[str, str]]] = {}
    for entry in entries:
        named = entry.columns if isinstance(entry.columns, dict) else {}
        for source in read_entry(entry):
            raw |= {one.where: (decoded(one.value), named) for one in source.rows if one.where in wanted}
    for row in rows:
        value, named = raw.get(row.source, (None, {}))
        leaves = [(named.get(path, path), text) for path, text in _leaves(value, "", named)]
        row.parts = [replace(part, column=_column(part.text, leaves)) for part in row.parts]


def _leaves(value: Any, path: str, named: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Texts of a row with their paths; `named` are columns of the file by the names that layouts use."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            name = named.get(str(key), str(key)) if not path else str(key)
            yield from _leaves(item, f"{path}.{name}" if path else name, named)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _leaves(item, f"{path}[{place}]", named)


def _column(text: str, leaves: Sequence[tuple[str, str]]) -> str:
    """Return the path of a text: of the same one, of one that holds it, or of those that it is made of."""
    words = text.strip()
    if not words:
        return ""
    same = next((path for path, leaf in leaves if leaf.strip() == words), None)
    if same is not None:
        return same
    holds = next((path for path, leaf in leaves if words in leaf), None)
    if holds is not None and len(words) >= SHORTEST:
        return holds
    inside = [path for path, leaf in leaves if len(leaf.strip()) >= SHORTEST and leaf.strip() in text]
    return " + ".join(inside)
