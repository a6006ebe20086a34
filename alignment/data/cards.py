"""The card of a data set: the YAML header of its README.md, which lists its configurations."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alignment.config.yaml_text import parse_yaml
from alignment.data.readers import extension
from alignment.errors import AlignmentError, DataError, first_line
from alignment.strict_json import shown

BYTES = 256 << 10  # of a README.md, of which the head is read
Card = Mapping[str, Mapping[str, Any]]  # configuration → its keys
Patterns = dict[str, list[str]]  # of files, by split


def configurations(folder: Path) -> Card:
    """Return the configurations in a folder's README.md by name; none if no file here belongs to one."""
    found = front_matter(folder / "README.md").get("configs")
    listed = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    card = {str(one["config_name"]): one for one in listed if "config_name" in one}
    patterns = [pattern for one in card.values() for texts in patterns_of(one).values() for pattern in texts]
    return card if any(matching(folder, [pattern]) for pattern in patterns) else {}


def chosen(folder: Path, card: Card, name: str | None) -> Mapping[str, Any]:
    """Return the configuration of that name; without one, the only one, or the default.

    Raises: DataError if there are several, which may have the same rows.
    """
    if name is not None or len(card) == 1:
        return card[name or next(iter(card))]
    default = [one for key, one in card.items() if key == "default" or one.get("default") is True]
    if len(default) != 1:
        raise DataError(
            f"{folder} holds the configurations {', '.join(card)} of its README.md, which may share rows; set name to "
            "one of them, or give data_files."
        )
    return default[0]


def patterns_of(config: Mapping[str, Any]) -> Patterns:
    """Return the patterns of a configuration's files by split."""
    given = config.get("data_files")
    if given is None:
        return {"": [f"{str(config.get('data_dir') or '.').strip('/')}/**/*"]}
    if isinstance(given, dict):
        return {str(split): _texts(one) for split, one in given.items()}
    parts = given if isinstance(given, list) else [given]
    found: Patterns = {}
    for part in parts:
        split, paths = (part.get("split", "train"), part.get("path")) if isinstance(part, dict) else ("train", part)
        found.setdefault(str(split), []).extend(_texts(paths))
    return found


def leads_outside(pattern: str) -> bool:
    """Whether a card's pattern names files outside its data set, or an address."""
    return ".." in Path(pattern).parts or pattern.startswith(("/", "~")) or "://" in pattern


def require_inside(folder: Path, pattern: str) -> None:
    """Refuse a card that names files outside its folder.

    Raises: DataError.
    """
    if leads_outside(pattern):
        raise DataError(
            f"{folder / 'README.md'} names {shown(pattern)}, which is outside the folder; a data set's files must be "
            "inside it. Give data_files."
        )


def matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Return the data files inside a folder that match.

    Raises: DataError if a pattern leads outside.
    """
    files: dict[Path, None] = {}
    for pattern in patterns:
        require_inside(folder, pattern)
        pattern = f"{pattern}/*" if pattern.endswith("**") else pattern  # to `datasets` files match it too
        try:
            files |= dict.fromkeys(sorted(file for file in folder.glob(pattern) if file.is_file() and extension(file)))
        except (ValueError, OSError, NotImplementedError):  # no pattern
            continue
    return [*files]


def _texts(value: Any) -> list[str]:
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]


def front_matter(path: Path) -> dict[str, Any]:
    """Return the YAML with which a README.md begins, {} if it begins with none.

    Raises: DataError if it cannot be read: it may list configurations that share rows.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(BYTES)
    except OSError:
        return {}
    head, mark, _ = content.removeprefix(b"---").partition(b"\n---")
    if not content.startswith(b"---") or (not mark and len(content) < BYTES):
        return {}
    try:
        found = parse_yaml(head.decode(), str(path), {}, []) if mark else None
    except (UnicodeDecodeError, AlignmentError) as error:
        raise DataError(f"{path}: its head is no YAML ({first_line(error)}); correct it, or give data_files.") from None
    if not mark:
        raise DataError(f"{path}: its head has more than {BYTES:,} bytes; shorten it, or give data_files.")
    return found if isinstance(found, dict) else {}
