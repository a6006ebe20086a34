"""Where rows come from: files, folders of them, and the Hub."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.config.data_files import is_builder, matching_files
from alignment.data.cards import configurations
from alignment.data.columns import named_as_ours, named_row, require_mapped
from alignment.data.folders import files_of, named_split, split_of
from alignment.data.overlaps import require_different
from alignment.data.readers import RawRow, RawSource, numbered, read_file
from alignment.errors import DataError, first_line, printable
from alignment.hub import local, why_not_on_hub
from alignment.manifest import read_manifest

if TYPE_CHECKING:
    from alignment.config.schema import DatasetEntry

OF_JUDGES = ("labels.jsonl", "rejected.jsonl", "gold_labels.jsonl")  # what a labelling run says of answers
_BOUND = r"(?:[0-9]{1,15}|[0-9]{1,3}(?:\.[0-9]{1,9})?%)?"
_SLICE = re.compile(rf"^(?P<name>[\w.+-]+?)(?:\[(?P<from>{_BOUND}):(?P<to>{_BOUND})\])?$")


def read_entry(entry: "DatasetEntry") -> list[RawSource]:
    """Read all that a recipe's data set entry names.

    Raises: DataError if there is nothing to read, or a file as a whole cannot be read.
    """
    columns = entry.columns if isinstance(entry.columns, list) else None
    sources = [_selected(source, columns) for source in _sources(entry)]
    if isinstance(entry.columns, dict) or entry.ignore_columns:
        names = entry.columns if isinstance(entry.columns, dict) else {}
        sources = named_as_ours(sources, names, frozenset(entry.ignore_columns))
    return sources if sources[0].from_hub else _sliced(sources, entry.split)


def require_there(entries: "list[DatasetEntry]") -> None:
    """Refuse entries whose path is neither a file or a folder here nor may be a Hub id; reads nothing.

    Raises: DataError.
    """
    for entry in entries:
        built = is_builder(entry.path) and entry.data_files is not None
        if not built and local(entry.path) is None and (reason := why_not_on_hub(entry.path)) is not None:
            raise DataError(
                f"{entry.path} does not exist. Give a file, a folder of data files, or a Hub id as owner/name; "
                f"{reason}."
            )


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
                f"`alignment audit {folder}` shows what is wrong; correct the judge and label again."
            )


@dataclass(frozen=True, slots=True)
class Located:
    """What an entry names: data files, or a data set that `datasets` reads."""

    files: list[Path] = field(default_factory=list)
    found: bool = False  # the files were found in a folder, so none may be a copy of another
    saved: Path | None = None  # a folder of `Dataset.save_to_disk`
    on_hub: bool = False


def locate(entry: "DatasetEntry") -> Located:
    """Find what a recipe's data set entry names, before it is read.

    Raises: DataError if there is nothing, or a key of the entry has no meaning.
    """
    path, split = local(entry.path) or Path(entry.path), split_name(entry.split)
    if is_builder(entry.path) and entry.data_files is not None:
        return _named(_matching(Path(entry.data_dir or "."), entry.data_files, entry.path), split)
    if local(entry.path) is None:
        require_there([entry])
        return Located(on_hub=True)
    if not path.is_dir():
        _refuse_keys_of_folders(entry, "file")
        return _named([path], split)
    if (path / "dataset_dict.json").exists():
        _refuse_keys_of_folders(entry, "saved data set")
        return Located(saved=_saved_split(path, split))
    if (path / "dataset_info.json").exists() and (path / "state.json").exists():
        _refuse_keys_of_folders(entry, "saved data set")
        _require_split(str(path), split, named_split(path.name))
        return Located(saved=path)
    card = configurations(path) if entry.data_dir is None and entry.data_files is None else {}
    if card and (entry.name is None or entry.name in card):
        return Located(files_of(path, split, card, entry.name), found=True)
    folder = path.joinpath(*(part for part in (entry.data_dir, entry.name) if part))
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; data_dir and name, where given, name folders inside {entry.path}.")
    if entry.data_files is not None:
        return _named(_matching(folder, entry.data_files, entry.path), split)
    return Located(files_of(folder, split), found=True)


def _sources(entry: "DatasetEntry") -> list[RawSource]:
    located = locate(entry)
    if located.on_hub:
        return [read_hub(entry)]
    if located.saved is not None:
        return [_read_saved(located.saved)]
    return _different(located.files) if located.found else [read_file(file) for file in located.files]


def _different(files: list[Path]) -> list[RawSource]:
    """Read the files of a folder, none of which is a copy of another."""
    sources = [read_file(file) for file in files]
    require_different(sources)
    return sources


def _refuse_keys_of_folders(entry: "DatasetEntry", what: str) -> None:
    for key in ("name", "data_dir", "data_files"):
        if getattr(entry, key) is not None:
            raise DataError(f"{entry.path} is one {what}, so {key} has no meaning there; take it out of the recipe.")


def _named(files: list[Path], split: str) -> Located:
    """Return files that a recipe names, which are the split train, or the one that their names tell of."""
    for file in files:
        _require_split(str(file), split, split_of(Path(file.name)) or named_split(file.parent.name.lower()))
    return Located(files)


def _require_split(name: str, split: str, own: str) -> None:
    """Refuse a split that a file or a saved data set does not have: its rows would stand for those of another.

    Raises: DataError.
    """
    if split != "train" and own not in (split, named_split(split)):
        raise DataError(
            f"{name} has no split {split!r}: it is one file or one split, and all its rows are read; take split out, "
            "or write a slice as train[:1000]."
        )


def _selected(source: RawSource, columns: list[str] | None) -> RawSource:
    if columns is None:
        return source
    first = next((row for row in source.rows if isinstance(row.value, dict)), None)
    missing = [column for column in columns if first is not None and column not in first.value]
    if first is not None and missing:
        raise DataError(
            f"{first.where}: columns names {', '.join(missing)}, which the row lacks; it has {', '.join(first.value)}."
        )
    return replace(source, rows=[_picked(row, columns) for row in source.rows])


def _picked(row: RawRow, columns: list[str]) -> RawRow:
    if not isinstance(row.value, dict):
        return row
    return replace(row, value={column: row.value[column] for column in columns if column in row.value})


def in_our_columns(row: RawRow, entry: "DatasetEntry", seen: set[str]) -> RawRow:
    """Return a row with the columns and names that an entry gives; `seen` gets the keys that are left out of it.

    Raises: DataError as `read_entry` does of one row.
    """
    if isinstance(entry.columns, list):
        row = _picked(row, entry.columns)
    names = entry.columns if isinstance(entry.columns, dict) else {}
    return named_row(row, names, frozenset(entry.ignore_columns), seen)


def require_columns(source: RawSource, entry: "DatasetEntry") -> None:
    """Refuse columns of an entry that no row of a source has.

    Raises: DataError.
    """
    _selected(source, entry.columns if isinstance(entry.columns, list) else None)
    if isinstance(entry.columns, dict):
        require_mapped(source, entry.columns)


def bounds(split: str) -> tuple[int, int | None]:
    """Return the rows of a slice such as `train[10:20]`, from the first, up to the second; None: all that follow.

    Raises: DataError if the slice is a share of the rows, whose number is not known before they are read.
    """
    match = _SLICE.match(split)
    first, last = (match["from"] or "", match["to"] or "") if match else ("", "")
    if first.endswith("%") or last.endswith("%"):
        raise DataError(f"split: {split} is a share of rows that are not counted before they are streamed; give rows.")
    return int(first or 0), int(last) if last else None


def split_name(split: str) -> str:
    """Return a split's name without its slice.

    Raises: DataError if it is none.
    """
    match = _SLICE.match(split)
    if match is None:
        raise DataError(
            f"split: {split} is not understood; write a name, or a slice such as train[:1000], test[:10%] or "
            "train[:0.1%]."
        )
    if any(bound and bound.endswith("%") and float(bound[:-1]) > 100 for bound in (match["from"], match["to"])):
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
    return round(float(text[:-1]) / 100 * total) if text.endswith("%") else int(text)


def _matching(folder: Path, patterns: str | list[str], what: str) -> list[Path]:
    files: list[Path] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        try:
            found = matching_files(folder, pattern)
        except (ValueError, OSError) as error:
            raise DataError(f"{what}: data_files {pattern[:60]} cannot be looked up: {first_line(error)}.") from None
        if not found:
            raise DataError(f"{what}: data_files {pattern} matches nothing in {folder}.")
        files += [file for file in found if file not in files]
    return files


def read_hub(entry: "DatasetEntry") -> RawSource:
    """Read one split of a data set on the Hub."""
    from alignment.data.hub import load_hub_rows

    name, _, bounds_of = entry.split.partition("[")
    is_cut_here = "." in bounds_of  # `datasets` takes whole percents
    values, fingerprint = load_hub_rows(entry.model_copy(update={"split": name}) if is_cut_here else entry)
    rows = list(numbered(values, f"{entry.path}[{entry.split}]"))
    source = RawSource(entry.path, rows, fingerprint, from_hub=True)
    return _sliced([source], entry.split)[0] if is_cut_here else source


def _saved_split(path: Path, split: str) -> Path:
    """Return the folder of a split where `DatasetDict.save_to_disk` wrote several."""
    splits = sorted(folder.name for folder in path.iterdir() if (folder / "state.json").is_file())
    if split not in splits:
        raise DataError(f"{path} has no split {split!r}; set split to one of {', '.join(splits) or 'none'}.")
    return path / split


def _read_saved(path: Path) -> RawSource:
    from alignment.data.hub import load_saved_rows

    values, fingerprint = load_saved_rows(path)
    return RawSource(str(path), list(numbered(values, str(path))), fingerprint)
