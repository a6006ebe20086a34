"""The files that `data_files` of a data set entry names."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignment.hub import local

BUILDERS = ("json", "parquet", "csv", "text")  # `datasets`' names for files of one kind, with `data_files`


def is_builder(path: str) -> bool:
    """Return whether the `path` of an entry with `data_files` is a builder, not a folder here."""
    return path in BUILDERS and local(path) is None


def matching_files(folder: Path, pattern: str) -> list[Path]:
    """Return the file of this name, or the files in `folder` that match the glob pattern, sorted.

    Raises: ValueError, OSError if the pattern is invalid.
    """
    file = Path(pattern)
    if file.is_file():
        return [file]
    return [] if file.is_absolute() else sorted(folder.glob(pattern))


def named_files(entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield the files that `data_files` of an entry names. A pattern without a match is yielded as it is.

    Args:
        entry: the keys of a `DatasetEntry`.
    """
    path, given = entry["path"], entry.get("data_files") or []
    if not is_builder(path) and local(path) is None:
        return  # a data set on the Hub
    parts = (entry.get("data_dir"),) if is_builder(path) else (path, entry.get("data_dir"), entry.get("name"))
    folder = Path(*(part for part in parts if part))
    for pattern in [given] if isinstance(given, str) else given:
        try:
            files = matching_files(folder, pattern)
        except (ValueError, OSError):
            files = []
        yield from map(str, files or [folder / pattern])
