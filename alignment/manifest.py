"""Reading of a run's manifest.json; an error names the field that has an invalid value."""

import contextlib
import math
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignment.errors import AlignmentError
from alignment.json_lines import read_object
from alignment.strict_json import is_whole, shown

MANIFEST = "manifest.json"
STATUSES = ("running", "finished", "failed")
MOST_BYTES = 64 * 2**20
CALLS = "calls*.sqlite"  # replies of judges, which may have cost money


def read_manifest(folder: Path | str) -> dict[str, Any]:
    """Return a run's manifest; {} if the folder has none. Fields that are null are left out.

    Raises: AlignmentError if it cannot be read, or a field that a command reads has an invalid value.
    """
    file = Path(folder) / MANIFEST
    if not file.is_file():
        return {}
    remedy = f"the file was changed by hand or damaged. Put it back, or {how_anew(folder)}."
    manifest = read_object(file, remedy, MOST_BYTES)
    for field, value in manifest.items():
        kind, fits = FIELDS.get(field, (None, None))
        if fits is not None and value is not None and not fits(value):
            raise AlignmentError(f"{file}: {field} is {shown(value)}, and must be {kind}; {remedy}")
    return {field: value for field, value in manifest.items() if value is not None}


def stores_with_calls(folder: Path | str) -> list[Path]:
    """Return the files that hold replies of judges, other than failed calls; one that cannot be read counts."""
    return [store for store in sorted(Path(folder).glob(CALLS)) if _holds_calls(store)]


def _holds_calls(store: Path) -> bool:
    log = store.with_name(f"{store.name}-wal")  # writes that a killed process had not yet moved into the store
    if log.exists() and log.stat().st_size:
        return True
    try:  # immutable: SQLite creates no file next to the store
        with contextlib.closing(sqlite3.connect(f"{store.absolute().as_uri()}?immutable=1", uri=True)) as connection:
            return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM calls WHERE status = 'ok')").fetchone()[0])
    except sqlite3.Error:
        return True


def how_anew(path: Path | str, what: str = "") -> str:
    """Return how to start the run again without losing paid replies."""
    if stores_with_calls(path):
        return f"name another output_dir to run {what}anew: this one has replies of a judge, which were paid for"
    return f"pass --overwrite true to run {what}anew, or name another output_dir"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and is_whole(value)


def _is_identifier(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{4,64}", value) is not None


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_launch(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"processes", "engine"}:
        return False
    processes = value["processes"]
    return isinstance(processes, int) and processes >= 1 and isinstance(value["engine"], str)


def _is_lineage(value: Any) -> bool:
    hashes = [value[key] for key in value if key.endswith("_sha256")] if isinstance(value, dict) else [None]
    return all(isinstance(hash_, str) and hash_.isprintable() for hash_ in hashes)


def _is_gate(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("passed"), bool) and isinstance(value.get("missed"), list)


def _is_tracked(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("artifact", ""), str)


FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {  # what a command reads of them
    **dict.fromkeys(("stage", "recipe_sha256", "started", "finished"), ("text", _is_text)),
    "status": (f"one of {', '.join(STATUSES)}", lambda value: value in STATUSES),
    **dict.fromkeys(("recipe", "versions", "results", "provenance", "policy"), ("an object", _is_object)),
    **dict.fromkeys(("scorers", "watch_scorers", "skipped"), ("a list", _is_list)),
    **dict.fromkeys(("score_mean", "score_std"), ("a finite number", _is_number)),
    "identifier": ("hexadecimal digits", _is_identifier),
    "prompt_kind": ("text or messages", lambda value: value in ("text", "messages")),
    "members": ("a list of names", _are_names),
    "launch": ("an object of processes and engine", _is_launch),
    "lineage": ("an object whose hashes are text", _is_lineage),
    "gate": ("an object of passed and missed", _is_gate),
    "wandb": ("an object with an artifact's name", _is_tracked),
    "files": ("an object of files by split", _is_object),
    "wandb_run_id": ("text", _is_text),
}
