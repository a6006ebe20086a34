"""Where rows come from: files, folders of them, and the Hub."""

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.data.columns import named_as_ours
from alignment.data.readers import EXTENSIONS, RawSource, extension, numbered, read_file
from alignment.errors import DataError, first_line, printable
from alignment.hub import local, why_not_on_hub
from alignment.manifest import read_manifest

if TYPE_CHECKING:
    from alignment.config.schema import DatasetEntry

BUILDERS = ("json", "parquet", "csv", "text")  # `datasets`' names for files of one kind, with `data_files`
OF_JUDGES = ("labels.jsonl", "rejected.jsonl", "gold_labels.jsonl")  # what a labelling run says of answers
_SPLITS = {
    "train": "train", "training": "train",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
}  # fmt: skip
MOST_FILES = 100_000  # that a folder of data may hold
_SLICE = re.compile(r"^(?P<name>[\w.+-]+?)(?:\[(?P<from>(?:[0-9]{1,15}%?)?):(?P<to>(?:[0-9]{1,15}%?)?)\])?$")


def read_entry(entry: "DatasetEntry") -> list[RawSource]:
    """Read all that a recipe's data set entry names.

    Raises: DataError where there is nothing to read, or a file as a whole cannot be read.
    """
    columns = entry.columns if isinstance(entry.columns, list) else None
    sources = [_selected(source, columns) for source in _sources(entry)]
    if isinstance(entry.columns, dict) or entry.ignore_columns:
        names = entry.columns if isinstance(entry.columns, dict) else {}
        sources = named_as_ours(sources, names, frozenset(entry.ignore_columns))
    return sources if sources[0].from_hub else _sliced(sources, entry.split)


def refuse_rejected(entries: "list[DatasetEntry]") -> None:
    """Refuse the labels of a run whose judge missed its gate: they may be looked at, and train nothing.

    Raises: DataError that says by how much they missed it.
    """
    for entry in entries:
        path = Path(entry.path).expanduser()
        folder = path if path.is_dir() else path.parent
        if path.is_file() and path.name not in OF_JUDGES:
            continue
        of_judges = any((folder / name).is_file() for name in OF_JUDGES)  # else a manifest.json is another program's
        gate = read_manifest(folder).get("gate", {}) if of_judges else {}
        if gate.get("passed") is False:
            missed = printable("; ".join(map(str, gate["missed"])))
            raise DataError(
                f"{entry.path}: these labels missed their gate, so nothing may be trained on them: {missed}. "
                f"`alignment audit {folder}` shows what is wrong; mend the judge and label again."
            )


def _sources(entry: "DatasetEntry") -> list[RawSource]:
    path = local(entry.path) or Path(entry.path)
    if entry.path in BUILDERS and entry.data_files is not None and local(entry.path) is None:
        return [read_file(file) for file in _matching(Path(entry.data_dir or "."), entry.data_files, entry.path)]
    if local(entry.path) is None:
        reason = why_not_on_hub(entry.path)
        if reason is not None:
            raise DataError(
                f"{entry.path} does not exist. Give a file, a folder of data files, or a Hub id as owner/name; "
                f"{reason}."
            )
        return [read_hub(entry)]
    split = _split_name(entry.split)
    if not path.is_dir():
        for key in ("name", "data_dir", "data_files"):
            if getattr(entry, key) is not None:
                raise DataError(f"{entry.path} is one file, so {key} has no meaning there; take it out of the recipe.")
        return [read_file(path)]
    if (path / "dataset_info.json").exists() and (path / "state.json").exists():
        return [_read_saved(path)]
    folder = path.joinpath(*(part for part in (entry.data_dir, entry.name) if part))
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; data_dir and name, where given, name folders inside {entry.path}.")
    if entry.data_files is not None:
        return [read_file(file) for file in _matching(folder, entry.data_files, entry.path)]
    return [read_file(file) for file in files_of(folder, split)]


def _selected(source: RawSource, columns: list[str] | None) -> RawSource:
    if columns is None:
        return source
    first = next((row for row in source.rows if isinstance(row.value, dict)), None)
    missing = [column for column in columns if first is not None and column not in first.value]
    if first is not None and missing:
        raise DataError(
            f"{first.where}: columns names {', '.join(missing)}, which the row lacks; it has {', '.join(first.value)}."
        )
    rows = [
        replace(row, value={column: row.value[column] for column in columns if column in row.value})
        if isinstance(row.value, dict)
        else row
        for row in source.rows
    ]
    return replace(source, rows=rows)


def _split_name(split: str) -> str:
    match = _SLICE.match(split)
    if match is None:
        raise DataError(
            f"split: {split} is not understood; write a name, or a slice such as train[:1000] or test[:10%]."
        )
    if any(bound and bound.endswith("%") and int(bound[:-1]) > 100 for bound in (match["from"], match["to"])):
        raise DataError(f"split: {split} goes beyond 100%; there are no more rows.")
    return match["name"]


def _sliced(sources: list[RawSource], split: str) -> list[RawSource]:
    """Apply a split's slice, `train[10:20]` or `train[:5%]`, to the rows of all files together."""
    match = _SLICE.match(split)
    if match is None or "[" not in split:
        return sources
    total = sum(len(source.rows) for source in sources)
    begin, end = _bound(match["from"], total, 0), _bound(match["to"], total, total)
    kept, offset = [], 0
    for source in sources:
        rows = source.rows[max(0, begin - offset) : max(0, end - offset)]
        offset += len(source.rows)
        if rows:
            kept.append(replace(source, rows=rows))
    if not kept:
        raise DataError(f"split: {split} selects none of {total} rows.")
    return kept


def _bound(text: str, total: int, default: int) -> int:
    if not text:
        return default
    return round(int(text[:-1]) / 100 * total) if text.endswith("%") else int(text)


def _matching(folder: Path, patterns: str | list[str], what: str) -> list[Path]:
    files: list[Path] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        whole = Path(pattern)
        try:
            found = [whole] if whole.is_file() else sorted(folder.glob(pattern)) if not whole.is_absolute() else []
        except (ValueError, OSError) as error:
            raise DataError(f"{what}: data_files {pattern[:60]} cannot be looked up: {first_line(error)}.") from None
        if not found:
            raise DataError(f"{what}: data_files {pattern} matches nothing in {folder}.")
        files += [file for file in found if file not in files]
    return files


def files_of(folder: Path, split: str) -> list[Path]:
    """Return the data files in a folder that belong to `split`.

    A name that holds a word such as train, test or validation belongs to that split, as on the Hub; others are
    training data where no file is named so. Text files count only where nothing else is there: beside data they are
    notes and licences. Of a labelling run, the rankings alone are data.
    """
    if (folder / "manifest.json").is_file() and (folder / "labels.jsonl").is_file():
        return [folder / "labels.jsonl"]
    visible = (file for file in folder.rglob("*") if not re.search(r"(^|/)\.", file.relative_to(folder).as_posix()))
    everything = sorted(itertools.islice((file for file in visible if file.is_file()), MOST_FILES + 1))
    if len(everything) > MOST_FILES:
        raise DataError(f"{folder} holds more than {MOST_FILES:,} files; name those to read with data_files.")
    files = [file for file in everything if extension(file)]
    files = [file for file in files if extension(file) != "txt"] or files
    wanted = ", ".join(f".{known}" for known in EXTENSIONS)
    if not files:
        kinds = sorted({file.suffix or file.name for file in everything})
        found = f"{len(everything)} files ({', '.join(kinds[:5])})" if everything else "nothing"
        raise DataError(f"{folder} holds no data files: wanted {wanted} (or .gz of these), found {found}.")
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(_split_of(file.relative_to(folder)), []).append(file)
    unnamed = by_split.pop("", [])
    if unnamed and "train" not in by_split:
        by_split["train"] = unnamed
    chosen = by_split.get(_SPLITS.get(split, split))
    if not chosen:
        raise DataError(f"{folder} has no split '{split}'; its files' names tell of {', '.join(sorted(by_split))}.")
    return chosen


def _split_of(path: Path) -> str:
    words = [word for part in path.parts for word in re.split(r"[^a-z]+", part.lower())]
    return next((_SPLITS[word] for word in reversed(words) if word in _SPLITS), "")


def read_hub(entry: "DatasetEntry") -> RawSource:
    """Read one split of a data set on the Hub."""
    from alignment.data.hub import load_hub_rows

    values, fingerprint = load_hub_rows(entry)
    return RawSource(entry.path, list(numbered(values, f"{entry.path}[{entry.split}]")), fingerprint, from_hub=True)


def _read_saved(path: Path) -> RawSource:
    from alignment.data.hub import load_saved_rows

    values, fingerprint = load_saved_rows(path)
    return RawSource(str(path), list(numbered(values, str(path))), fingerprint)
