"""Rows from the Hugging Face Hub and from folders that `datasets` saved."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from alignment.data.cards import BYTES, leads_outside
from alignment.data.columnar import plain_rows
from alignment.errors import DataError, JsonError, first_line
from alignment.hub import reach
from alignment.strict_json import parse, shown

if TYPE_CHECKING:
    from alignment.config.schema import DatasetEntry

PLAIN = frozenset({"Value", "List", "LargeList", "Sequence", "ClassLabel", "Json"})  # types of `datasets` without files


def load_hub_rows(entry: "DatasetEntry") -> tuple[list[Any], str]:
    """Load a split through `datasets`, with the keys of the entry that it understands.

    Returns: the rows and the data set's fingerprint. Raises: DataError with the id and the message of `datasets`.
    """
    reach()
    import datasets

    _require_own_files(entry.path)
    keys = {"name": entry.name, "data_dir": entry.data_dir, "data_files": entry.data_files, "split": entry.split}
    try:
        loaded = datasets.load_dataset(entry.path, **keys)
    except Exception as error:  # the library raises many types, also those of its network and file layers
        raise DataError(
            f"{entry.path} is not a file or folder here, and loading it from the Hub failed: "
            f"{type(error).__name__}: {first_line(error, 500)}"
        ) from error
    _require_plain(loaded, entry.path)
    return list(plain_rows(loaded, f"{entry.path}[{entry.split}]")), str(loaded._fingerprint)


def stream_hub_rows(entry: "DatasetEntry") -> tuple[Callable[[int], Iterator[Any]], str]:
    """Open a split for streaming through `datasets`, at the revision that its repository has now.

    Returns: the rows after a number of them, as a function of it; and the revision.
    Raises: DataError with the id and the message of the library.
    """
    reach()
    import datasets
    from huggingface_hub import HfApi

    _require_own_files(entry.path)
    keys = {"name": entry.name, "data_dir": entry.data_dir, "data_files": entry.data_files}
    try:
        revision = str(HfApi().dataset_info(entry.path).sha)
        opened: Any = datasets.load_dataset(
            entry.path, **keys, split=entry.split.partition("[")[0], revision=revision, streaming=True
        )
        opened = opened if opened.features is not None else opened._resolve_features()
    except Exception as error:  # as in `load_hub_rows`
        raise DataError(
            f"{entry.path} is not a file or folder here, and streaming it from the Hub failed: "
            f"{type(error).__name__}: {first_line(error, 500)}"
        ) from error
    _require_plain(opened, entry.path)
    return lambda before: plain_rows(opened.skip(before), f"{entry.path}[{entry.split}]"), revision


def load_saved_rows(path: Path) -> tuple[list[Any], str]:
    """Load a folder that `Dataset.save_to_disk` wrote."""
    read, fingerprint = stream_saved_rows(path)
    return list(read(0)), fingerprint


def stream_saved_rows(path: Path) -> tuple[Callable[[int], Iterator[Any]], str]:
    """Open a folder that `Dataset.save_to_disk` wrote, whose rows stay on the disk; returns as `stream_hub_rows`."""
    import datasets

    _require_arrow_files(path)
    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:
        raise DataError(f"{path} is not a readable saved data set: {first_line(error)}") from error
    _require_plain(loaded, str(path))
    try:
        loaded.data.validate(full=True)  # a changed offset could read beyond the file and crash the process
    except ValueError as error:
        raise DataError(f"{path} is not a readable saved data set: {first_line(error)}") from error
    return lambda before: plain_rows(loaded.skip(before), str(path)), str(loaded._fingerprint)


def _require_plain(loaded: Any, name: str) -> None:
    """Reject columns other than texts and numbers, because reading them would open the files and addresses in them."""
    for column, feature in loaded.features.items():
        kinds = sorted({type(part).__name__ for part in _parts(feature)} - PLAIN)
        if kinds:
            raise DataError(f"{name}: column {column} holds {kinds[0]}, and rows are texts and numbers; take it out.")


def _parts(feature: Any) -> Iterator[Any]:
    """Walk through a column's type and the types inside it."""
    if isinstance(feature, dict | list):
        for part in feature.values() if isinstance(feature, dict) else feature:
            yield from _parts(part)
        return
    yield feature
    inner = getattr(feature, "feature", None)
    if inner is not None:
        yield from _parts(inner)


def _require_arrow_files(path: Path) -> None:
    """Refuse a saved data set whose state.json names files outside its folder."""
    file = path / "state.json"
    try:
        state = parse(file.read_bytes())
        names = [entry["filename"] for entry in state["_data_files"]]
    except (OSError, JsonError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a readable saved data set: {file.name}: {error}") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".arrow"):
            raise DataError(f"{file}: _data_files names {shown(name)}, which is not an Arrow file beside it.")


def _require_own_files(name: str) -> None:
    """Refuse a data set on the Hub whose card has `datasets` read files or addresses elsewhere."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        card = Path(hf_hub_download(name, "README.md", repo_type="dataset")).read_bytes()[:BYTES]
        front = yaml.safe_load(card.split(b"\n---", 1)[0].removeprefix(b"---"))
    except (OSError, ValueError, HfHubHTTPError, yaml.YAMLError, RecursionError):
        return  # without a readable card `datasets` reports the fault
    configs = front.get("configs") if isinstance(front, dict) else None
    listed = [one for one in configs or [] if isinstance(one, dict)]
    for pattern in _texts([[one.get("data_files"), one.get("data_dir")] for one in listed]):
        if leads_outside(pattern):
            raise DataError(f"{name}: its card names {shown(pattern)}; a data set's files are those of its repository.")


def _texts(value: Any) -> Iterator[str]:
    """Walk through the texts of lists and objects."""
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(part)
