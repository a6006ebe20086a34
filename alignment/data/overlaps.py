"""Detection of files in a folder that may have the same rows; the recipe must then name the files."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from alignment.data.readers import RawSource, extension
from alignment.errors import DataError
from alignment.strict_json import shown

SPLITS = {
    "train": "train", "training": "train",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
}  # fmt: skip
ASIDE = frozenset(  # words in names of files and folders that are not in use
    {"old", "older", "backup", "backups", "bak", "copy", "copies", "archive", "archived", "deprecated", "unused",
     "obsolete", "outdated", "previous", "tmp", "temp", "trash", "draft", "drafts"}
)  # fmt: skip
CHOOSE = "Name those to read with data_files, or one folder with data_dir."


def require_one_data_set(folder: Path, files: Sequence[Path]) -> None:
    """Refuse files of one split that are not parts of one data set, by their names.

    They are if they are in one folder, or in folders whose names differ only in numbers and splits.

    Raises: DataError if they are in several folders, one is named as old or a copy, or one is another kind of
        file of the same name.
    """
    relative = [file.relative_to(folder) for file in files]
    aside = [path for path in relative if not ASIDE.isdisjoint(_words(path.as_posix()))]
    if aside and len(aside) < len(relative):
        other = next(path for path in relative if path not in aside)
        raise _unclear(folder, [other, aside[0]], f"and {shown(aside[0].as_posix())} looks like an old file or a copy")
    homes = {_home(path): path for path in reversed(relative)}
    if len(homes) > 1:
        raise _unclear(folder, [*homes.values()][::-1], "in several folders, which may share rows")
    kinds: dict[str, Path] = {}
    for path in relative:
        known = kinds.setdefault(path.as_posix().removesuffix(".gz").removesuffix(f".{extension(path)}"), path)
        if extension(known) != extension(path):
            raise _unclear(folder, [known, path], "of one name, which may hold the same rows")


def require_different(sources: Iterable[RawSource]) -> None:
    """Refuse files of the same content: each row would count twice.

    Raises: DataError.
    """
    seen: dict[str, RawSource] = {}
    for source in sources:
        known = seen.setdefault(source.sha256, source)
        if known is not source and source.rows:
            raise DataError(f"{known.name} and {source.name} have the same content. {CHOOSE}")


def _unclear(folder: Path, examples: Sequence[Path], why: str) -> DataError:
    found = ", ".join(shown(path.as_posix()) for path in examples[:3])
    return DataError(f"{folder} holds {found} {why}. {CHOOSE}")


def _home(path: Path) -> tuple[str, ...]:
    parts = [re.sub(r"[0-9]+", "0", part.lower()) for part in path.parts[:-1]]
    return tuple(part for part in parts if part not in SPLITS)


def _words(text: str) -> list[str]:
    return re.split(r"[^a-z]+", text.lower())
