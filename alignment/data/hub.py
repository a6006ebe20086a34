"""Rows from the Hugging Face Hub and from folders that `datasets` saved."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.data.columnar import plain_rows
from alignment.errors import DataError, first_line

if TYPE_CHECKING:
    from alignment.config.schema import DatasetEntry


def load_hub_rows(entry: "DatasetEntry") -> tuple[list[Any], str]:
    """Load a split through `datasets`, with the keys of the entry that it understands.

    Returns: the rows and the data set's fingerprint. Raises: DataError naming the id and what `datasets` said.
    """
    import datasets

    keys = {"name": entry.name, "data_dir": entry.data_dir, "data_files": entry.data_files, "split": entry.split}
    try:
        loaded = datasets.load_dataset(entry.path, **keys)
    except Exception as error:  # the library raises every kind, its network and file layers' own among them
        raise DataError(
            f"{entry.path} is no file or folder here, and the Hub did not give it either: "
            f"{type(error).__name__}: {first_line(error, 500)}"
        ) from error
    return list(plain_rows(loaded, f"{entry.path}[{entry.split}]")), str(loaded._fingerprint)


def load_saved_rows(path: Path) -> tuple[list[Any], str]:
    """Load a folder that `Dataset.save_to_disk` wrote."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:
        raise DataError(f"{path} is not a readable saved data set: {first_line(error)}") from error
    if not isinstance(loaded, datasets.Dataset):
        raise DataError(f"{path} holds several splits; name the folder of one of them, {', '.join(map(str, loaded))}.")
    return list(plain_rows(loaded, str(path))), str(loaded._fingerprint)
