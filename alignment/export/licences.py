"""Licences that a base's and a data set's own cards name; no other source is used, and none is guessed."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.data.cards import front_matter
from alignment.errors import DataError

UNKNOWN = "unknown"  # an identifier of the Hub's
CARD = "README.md"
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")


@dataclass(frozen=True)
class Licence:
    """A licence as a card names it."""

    name: str = UNKNOWN  # an identifier, as the Hub lists them
    title: str | None = None  # of a licence that the Hub does not list: `other`
    link: str | None = None

    def __str__(self) -> str:
        """Return the title, else the identifier."""
        return self.title or self.name


def licence_of(name: str, *, kind: str = "model") -> Licence:
    """Return the licence that the card of a folder, or of the folder of a file, or of a Hub id in the cache names.

    Args:
        kind: of the Hub id, model or dataset.
    """
    path = Path(name)
    folder = path if path.is_dir() else path.parent if path.is_file() else None
    if folder is None:
        card = _cached(name, kind)
        return _named_in(card) if card is not None else Licence()
    return _named_in(folder / CARD)


def _cached(name: str, kind: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, CARD, repo_type=kind)
    except ValueError:  # no name of a repository
        return None
    return Path(found) if isinstance(found, str) else None


def _named_in(card: Path) -> Licence:
    try:
        head = front_matter(card)
    except DataError:  # no YAML
        return Licence()
    name = head.get("license")
    if isinstance(name, list) and len(name) == 1:
        name = name[0]
    if not isinstance(name, str) or not IDENTIFIER.fullmatch(name):
        return Licence()
    title, link = head.get("license_name"), head.get("license_link")
    return Licence(name.lower(), _line(title), _line(link))


def _line(value: Any) -> str | None:
    return value if isinstance(value, str) and value.isprintable() and 0 < len(value) <= 300 else None
