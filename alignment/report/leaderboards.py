"""Leaderboards of an evaluation's policies, by judges and by the people who ranked its answers."""

from typing import Any

from alignment.config.schema.require import PEOPLE
from alignment.errors import AlignmentError
from alignment.evaluate.statistics import Bootstrap
from alignment.report.reading import Run
from alignment.report.tables import Board, Cell
from alignment.report.wording import label
from alignment.standings.leaderboards import leaderboards
from alignment.standings.reading import ANSWERS, read_battles

QUICK = Bootstrap(samples=500)  # the command `winrate` has more


def boards_of(run: Run, tones: dict[str, str]) -> list[Board]:
    """Return the leaderboards of an evaluation, and those of its subsets; people's also of two policies."""
    if not (run.path / ANSWERS).is_file():
        return []
    try:
        found = leaderboards(read_battles([run.path]).rows, QUICK, least={PEOPLE: 2})
    except AlignmentError as error:
        return [Board("Leaderboard", "", problem=str(error))]
    return [
        view
        for board in found
        for name, one in [("", board), *board["subsets"].items()]
        for view in [_view(f"{board['judge']}{f', {name}' if name else ''}", one, tones)]
    ]


def _view(by: str, board: dict[str, Any], tones: dict[str, str]) -> Board:
    title = f"Leaderboard by {by}"
    if "problem" in board:
        return Board(title, "", problem=board["problem"])
    about = f"{board['n']:,} judgements on {board['prompts']:,} prompts. Bradley-Terry with Davidson's ties"
    if not board["bounded"]:
        about += "; a policy won or lost all its comparisons, so half a tie was added to each pair"
    rows = [(label(row["model"]), tones.get(row["model"], ""), _cells(row)) for row in board["models"]]
    return Board(title, f"{about}. In brackets the 95% interval, resampled by prompt.", rows)


def _cells(row: dict[str, Any]) -> list[Cell]:
    elo, rate = row["elo"], row["win_rate"]
    of_elo = "" if elo["low"] is None else f"[{elo['low']:.0f}, {elo['high']:.0f}]"
    of_rate = "" if rate["low"] is None else f"[{100 * rate['low']:.0f}–{100 * rate['high']:.0f}]"
    counts = [Cell(f"{row[key]:,}") for key in ("wins", "ties", "losses")]
    return [Cell(str(row["rank"])), Cell(f"{elo['value']:.0f}", of_elo), Cell(f"{rate['value']:.0%}", of_rate), *counts]
