"""The location of the files of the folder `launch`: in a checkout, or as installed by pip."""

import importlib.metadata
from pathlib import Path

import alignment
from alignment.errors import AlignmentError

FOLDER = "launch"
DISTRIBUTION = "alignment-stack"


def shipped(name: str) -> Path:
    """Return a file of the folder `launch`, such as `accelerate/zero3.yaml`.

    Raises: AlignmentError if there is no such file.
    """
    checkout = Path(alignment.__file__).parents[1] / FOLDER / name
    if checkout.is_file():
        return checkout
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.as_posix().endswith(f"share/{DISTRIBUTION}/{FOLDER}/{name}"):
            return Path(str(file.locate())).resolve()
    raise AlignmentError(f"{FOLDER}/{name}: no such file, neither here nor in the installed package.")


def found(path: str) -> Path:
    """Return a file that a user names: the file itself, or the installed one if its path begins with `launch/`.

    Raises: AlignmentError if it is neither.
    """
    if Path(path).is_file():
        return Path(path)
    folder, _, name = path.partition(f"{FOLDER}/")
    if folder or not name:
        raise AlignmentError(f"{path}: no such file.")
    return shipped(name)
