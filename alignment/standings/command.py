"""`alignment winrate`: reads judgements, prints win rates, and writes all numbers."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignment.data.source_rows import OnBadRow
from alignment.errors import DataError, RecipeError, printable
from alignment.evaluate.statistics import Bootstrap
from alignment.run.files import write_json
from alignment.standings.battles import Battle, Battles, Match, matches
from alignment.standings.calibration import Calibration, of_alpaca_eval, read_calibration
from alignment.standings.layouts import ALPACA_EVAL
from alignment.standings.leaderboards import estimate, leaderboards, table
from alignment.standings.length_control import even, length_controlled
from alignment.standings.rates import by_subset, rates
from alignment.standings.reading import Recordings, read_battles

AUTO, NONE, MINIMAL = "auto", "none", "minimal"
WIDTH = 110  # columns of the text


@dataclass(frozen=True, slots=True)
class Options:
    """What `alignment winrate` is asked for."""

    baseline: str | None = None
    by: str | None = None  # a judge, a person, or `people`; None: everybody
    length_control: str = AUTO  # auto, none, minimal, or the path of AlpacaEval's file
    how: Bootstrap = field(default_factory=Bootstrap)
    json: Path | None = None
    on_bad_row: OnBadRow = "stop"
    entry: Mapping[str, Any] = field(default_factory=dict)  # keys of a recipe's data set entry


def run(
    paths: Sequence[Path], options: Options, *, recordings: Recordings | None = None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Print the win rates of every pair of models by every judge; returns what `--json` writes.

    Raises: AlignmentError if a file cannot be read, or an option does not fit the judgements.
    """
    calibration = _calibration(options.length_control)
    read = read_battles(paths, on_bad_row=options.on_bad_row, entry=options.entry, recordings=recordings)
    chosen = _chosen(read, options)
    found = []
    for match in matches(chosen, options.baseline):
        numbers = rates(match, options.how)
        numbers["length_controlled"], why = _length_controlled(match, read, options.length_control, calibration)
        numbers["subsets"] = by_subset(match, options.how)
        found.append(numbers)
        say(summary(numbers, why))
    if read.stale:
        say(f"{_count(read.stale, 'ranking')} by people not counted: of answers that the evaluation no longer has")
    for file in read.unnamed:
        say(
            f"{file} does not name the models of its answers: they are counted by their place. Name the answers' file, "
            "with instruction, output and generator in each row, or the folder of their evaluation too."
        )
    boards = leaderboards(chosen, options.how)
    for board in boards:
        say(table(board))
    results = {
        "files": read.files,
        "layouts": read.layouts,
        "skipped": read.skipped,
        "confidence_level": options.how.level,
        "bootstrap_samples": options.how.samples,
        "seed": options.how.seed,
        "matches": found,
        "leaderboards": boards,
    }
    if options.json is not None:
        write_json(options.json, results)
        say(f"All numbers: {options.json}")
    return results


def _chosen(read: Battles, options: Options) -> list[Battle]:
    """Return the judgements that the options select.

    Raises: RecipeError naming what there is if they select none.
    """
    models = sorted({name for row in read.rows for name in (row.first, row.second)})
    if options.baseline is not None and options.baseline not in models:
        raise RecipeError([f"--baseline {options.baseline}: the files judge {', '.join(models)}"])
    rows = read.rows
    if options.by is not None:
        rows = [row for row in rows if options.by in (row.judge, row.voice)]
        voices = sorted({name for row in read.rows for name in (row.judge, row.voice)})
        if not rows:
            raise RecipeError([f"--by {options.by}: the judgements are by {', '.join(voices)}"])
    if options.baseline is not None:
        rows = [row for row in rows if options.baseline in (row.first, row.second)]
    return rows


def _calibration(given: str) -> Calibration | None:
    """Return the calibration of a file that the option names.

    Raises: DataError if it cannot be read.
    """
    if given in (AUTO, NONE, MINIMAL):
        return None
    if not Path(given).exists():
        raise DataError(
            f"--length_control {given}: no such file; give AlpacaEval's df_gamed.csv, or auto, minimal or none."
        )
    return read_calibration(Path(given))


def _length_controlled(
    match: Match, read: Battles, wanted: str, calibration: Calibration | None
) -> tuple[dict[str, Any] | None, str]:
    """Return the length-controlled win rate, or None and why there is none.

    Raises: DataError if it was requested and cannot be computed.
    """
    if wanted == NONE:
        return None, ""
    of_alpaca = all(read.layouts.get(_file(row)) == ALPACA_EVAL for row in match.battles)
    if wanted == AUTO and not of_alpaca:
        return None, ""
    if match.first == match.second:  # as AlpacaEval: the baseline itself, even by construction
        return even(len(match.battles), calibration).as_json(), ""
    if wanted == AUTO:
        calibration, why = of_alpaca_eval()
        if calibration is None:
            return None, why
    known = [row.lengths for row in match.battles]
    lengths = [pair for pair in known if pair is not None]
    try:
        if calibration is not None:
            _require_places(match, read)
        if len(lengths) < len(known):
            raise DataError(
                f"{len(known) - len(lengths)} judgements have no answers to measure; name the files of outputs of "
                f"{match.first} and {match.second} too."
            )
        values = [np.nan if not row.usable else row.probability for row in match.battles]
        controlled = length_controlled(np.array(values, dtype=np.float64), np.array(lengths, dtype=np.float64),
                                       calibration)  # fmt: skip
    except DataError as error:
        if wanted == AUTO:
            return None, str(error)
        raise DataError(f"{match.first} against {match.second} by {match.judge}: {error}") from None
    return controlled.as_json(), ""


def _require_places(match: Match, read: Battles) -> None:
    """Check that a match has its files' prompts from the first on and without gaps: difficulties match by place.

    Raises: DataError if it has not.
    """
    files = {_file(row) for row in match.battles}
    if left := next((one for one in read.skipped if any(one.startswith(f"{file}:") for file in files)), None):
        raise DataError(
            f"a row was left out ({left}), so the next rows have not the place of their instruction in AlpacaEval's "
            "set, which tells its difficulty. Correct the row."
        )
    all_of_them = dict.fromkeys(row.cluster for row in read.rows if _file(row) in files)
    for mine, wanted in zip(dict.fromkeys(row.cluster for row in match.battles), all_of_them, strict=False):
        if mine != wanted:
            raise DataError(
                f"{match.judge} has not judged {match.first} against {match.second} on every instruction of "
                f"{', '.join(sorted(files))}, in their order, so the rows have not the place of their instruction in "
                "AlpacaEval's set, which tells its difficulty."
            )


def _file(row: Battle) -> str:
    return row.where.rpartition(":")[0]


def summary(numbers: dict[str, Any], why: str = "") -> str:
    """Return the numbers of one match as text."""
    who = f"{printable(numbers['model'])} against {printable(numbers['baseline'])} by {printable(numbers['judge'])}"
    title = f"{who}: {_count(numbers['n'], 'judgement')} on {_count(numbers['prompts'], 'prompt')}"
    lines = [f"  {name:<27} {value}" for name, value in headline(numbers)]
    if why:
        note = f"no length-controlled win rate: {why}"
        lines.append(textwrap.fill(note, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False))
    for name, one in numbers["subsets"].items():
        lines.append(f"  {printable(name):<27} {_subset(one)}")
    return "\n".join([title, *lines])


def headline(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the names and values of a match's numbers."""
    failed = f"; {numbers['failed']} without a verdict count nowhere" if numbers["failed"] else ""
    if numbers["win_rate"] is None:
        return [("win rate", f"no verdict{failed}")]
    error = numbers["standard_error"]
    se = "" if error is None else f", standard error {100 * error:.2f}"
    counts = (
        ", ".join(_count(numbers[key], key.removesuffix("s")) for key in ("wins", "draws"))
        + f", {numbers['losses']} loss{'' if numbers['losses'] == 1 else 'es'}"
    )
    found = [
        ("win rate, soft", f"{estimate(numbers['win_rate'])}{se}"),
        ("win rate, discrete", f"{estimate(numbers['discrete_win_rate'])}: {counts}{failed}"),
    ]
    if controlled := numbers["length_controlled"]:
        error = controlled["standard_error"]
        se = "" if error is None else f", standard error {100 * error:.2f}"
        found.append(("win rate, length-controlled", f"{100 * controlled['value']:.2f}%{se} ({controlled['model']})"))
    if length := numbers["length"]:
        found.append(("characters of an answer", f"{length['model']:,.0f} against {length['baseline']:,.0f}"))
    if numbers["orders"].keys() != {"unknown"}:
        orders = (f"{count} in {'both orders' if key == 'both' else 'one order'}"
                  for key, count in numbers["orders"].items() if key != "unknown")  # fmt: skip
        found.append(("shown", ", ".join(orders)))
    if numbers["order_consistency"]:
        found.append(("same winner in both orders", estimate(numbers["order_consistency"])))
    if numbers["correct"]:
        found.append(("prefers the labelled answer", estimate(numbers["correct"])))
    return found


def _subset(one: dict[str, Any]) -> str:
    if one["win_rate"] is None:
        return "no verdict"
    correct = f", prefers the labelled answer {estimate(one['correct'])}" if one["correct"] else ""
    return f"{estimate(one['win_rate'])} soft, {estimate(one['discrete_win_rate'])} discrete, n {one['n']}{correct}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
