"""Renders docs/tuning.md's table of tuning methods from cells.json, and tries its cells anew.

python -m tests.tuning.table                     # render
python -m tests.tuning.table --try               # try every cell, then render
python -m tests.tuning.table --try lora dora     # only these methods' cells
"""

import argparse
import json
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

from alignment.config.methods import TUNING_METHODS

DOCUMENT = Path(__file__).parents[2] / "docs" / "tuning.md"
FILE = Path(__file__).parent / "cells.json"
BEGIN, END = "<!-- make tuning-table writes this -->", "<!-- end of the table -->"
COLUMNS = (
    "sft", "reward", "dpo", "ppo", "grpo",
    "4-bit", "8-bit", "merge", "checkpointing", "two processes", "shards", "vLLM",
)  # fmt: skip
Cells = dict[str, dict[str, str]]


def read() -> Cells:
    """Return the outcomes by method and column."""
    found: Cells = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def write(cells: Cells) -> None:
    """Write the outcomes in the order of the methods and columns, and the table into the document."""
    ordered = {name: {column: cells[name][column] for column in COLUMNS} for name in TUNING_METHODS if name in cells}
    FILE.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{markdown(ordered)}\n{END}{after}", encoding="utf-8")


def markdown(cells: Cells) -> str:
    """Return the table, with a numbered note for each reason."""
    notes: list[str] = []
    lines = ["| `peft_method` | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, row in cells.items():
        lines.append(f"| `{name}` | " + " | ".join(_shown(row[column], notes) for column in COLUMNS) + " |")
    return "\n".join([*lines, "", *(f"{place}. {note}" for place, note in enumerate(notes, 1))])


def _shown(outcome: str, notes: list[str]) -> str:
    word, _, reason = outcome.partition(": ")
    if word == "works":
        return reason or "yes"
    if reason not in notes:
        notes.append(reason)
    return f"{'no' if word == 'refused' else word}, {notes.index(reason) + 1}"


def try_methods(names: list[str], columns: list[str]) -> None:
    """Try the methods' cells in some columns and write each method's row as it is finished.

    Raises: SystemExit if a cell fails; the rows of the methods before it are written.
    """
    from transformers.utils.logging import disable_progress_bar

    from tests.tuning.cells import Method, try_cell

    warnings.simplefilter("ignore")
    disable_progress_bar()
    failed = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            method = Method(name, Path(folder))
            row = {}
            for column in columns:
                try:
                    row[column] = try_cell(method, column)
                except Exception:  # whatever it is, the other cells are tried, and the command fails
                    failed.append(f"{name}, {column}:\n{traceback.format_exc()}")
                sys.stderr.write(f"{name}, {column}: {row.get(column, 'FAILS')}\n")
        if len(row) == len(columns):
            cells = read()
            write({**cells, name: {**cells.get(name, {}), **row}})
    if failed:
        raise SystemExit("\n".join(failed))


def main() -> None:
    """Render the table, after trying its cells if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--try", nargs="*", dest="names", metavar="METHOD", help="of every method, or of these")
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=[*COLUMNS], metavar="COLUMN")
    given = parser.parse_args()
    if given.names is None:
        write(read())
    else:
        try_methods(given.names or [*TUNING_METHODS], given.columns)


if __name__ == "__main__":
    main()
