"""What AlpacaEval's length-controlled win rate needs besides the judgements: `df_gamed.csv` of its Hub data set.

The file holds each instruction's difficulty, and judgements of the baseline told to be verbose and to be concise.
`instruction_difficulty.csv` holds the difficulties alone.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alignment import hub
from alignment.data.readers import read_file
from alignment.errors import DataError, first_line
from alignment.strict_json import shown

Floats = NDArray[np.float64]
Model = Literal["length_controlled_v1", "length_controlled_noreg", "length_controlled_minimal"]
MINIMAL: Model = "length_controlled_minimal"
GAMED_COLUMNS = ("index", "preference", "std_delta_len", "instruction_difficulty")
REPOSITORY, FILE = "tatsu-lab/alpaca_eval", "df_gamed.csv"  # a data set on the Hub


@dataclass(frozen=True, slots=True)
class Gamed:
    """Judgements of the baseline told to be verbose or concise, against the baseline itself; (rows,) each."""

    preference: Floats  # 0 to 1
    length: Floats  # standardised differences in characters
    difficulty: Floats


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the model needs besides the judgements."""

    difficulty: Floats  # (instructions,) by the instruction's place in AlpacaEval's set
    gamed: Gamed | None = None

    @property
    def model(self) -> Model:
        """AlpacaEval's name of the model that can be fitted."""
        return "length_controlled_noreg" if self.gamed is None else "length_controlled_v1"


@functools.cache
def of_alpaca_eval() -> tuple[Calibration | None, str]:
    """Return the calibration from the Hub or its cache, or None and why it is not there."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    hub.reach()
    try:
        path = hf_hub_download(REPOSITORY, FILE, repo_type="dataset")
    except LocalEntryNotFoundError:
        reason = "it is not in the cache, and the Hub is not reached"
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = first_line(error)
    else:
        return read_calibration(Path(path)), ""
    return None, (
        f"AlpacaEval's model needs {FILE} of the Hub data set {REPOSITORY}: {reason}. Give the file with "
        "--length_control FILE; --length_control minimal fits the model without it, which overrates short answers."
    )


def read_calibration(path: Path) -> Calibration:
    """Read AlpacaEval's `df_gamed.csv` or `instruction_difficulty.csv`, whichever the columns show.

    Raises: DataError naming the file if it is neither.
    """
    source = read_file(path)
    rows = []
    for raw in source.rows:
        if raw.fault is not None or not isinstance(raw.value, dict):
            raise DataError(f"{raw.where}: {raw.fault or 'the row is not of a table'}.")
        rows.append((raw.where, raw.value))
    columns = [column for column in rows[0][1] if column.strip() and column != "index"]
    if set(GAMED_COLUMNS) <= rows[0][1].keys():
        return _gamed(rows)
    if len(columns) != 1:
        raise DataError(
            f"{path}: has the columns {', '.join(map(repr, rows[0][1]))}. AlpacaEval's df_gamed.csv has "
            f"{', '.join(GAMED_COLUMNS)}; its instruction_difficulty.csv has an index and the difficulty."
        )
    return Calibration(_column(rows, columns[0]))


def _gamed(rows: Sequence[tuple[str, dict[str, Any]]]) -> Calibration:
    """Return the calibration of `df_gamed.csv`.

    As AlpacaEval does, the difficulty of the instruction at place i is that of the file's row i, which is the first
    gamed baseline's judgement on it.
    """
    known: set[str] = set()
    difficulty = _column(rows, "instruction_difficulty")
    count = 0
    for place, (where, row) in enumerate(rows):
        if row["index"] in known:
            continue
        if place != count:
            raise DataError(
                f"{where}: a new instruction follows a second judgement; the file must begin with one judgement of "
                "each instruction, as AlpacaEval's does."
            )
        known.add(row["index"])
        count += 1
    preference = _column(rows, "preference", empty=True)
    kept = np.isfinite(preference)
    length = _column(rows, "std_delta_len")
    return Calibration(difficulty[:count], Gamed(preference[kept], length[kept], difficulty[kept]))


def _column(rows: Sequence[tuple[str, dict[str, Any]]], name: str, *, empty: bool = False) -> Floats:
    """Return a column as numbers; with `empty`, a cell without one is NaN."""
    found = []
    for where, row in rows:
        try:
            value = float(row[name] if row[name] is not None else "nan") if row[name] != "" else math.nan
        except (TypeError, ValueError):
            value = math.inf
        if not math.isfinite(value) and not (empty and math.isnan(value)):
            raise DataError(f"{where}: {name} is {shown(row[name])}, not a number.")
        found.append(value)
    return np.asarray(found, dtype=np.float64)
