"""Leaderboards of three models and more, by judge and subset, as numbers and as text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alignment.errors import DataError, printable
from alignment.evaluate.statistics import Bootstrap
from alignment.standings.battles import Battle
from alignment.standings.bradley_terry import leaderboard

LEAST = 3  # models


def leaderboards(
    battles: Iterable[Battle], how: Bootstrap, *, least: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """Return a leaderboard for each judge of at least three models, and for all persons together.

    Each has the leaderboards of its `subsets` where there are several. One that has no common order has a `problem`
    instead of `models`.

    Args:
        least: by judge, another number of models than three.
    """
    fewest = least or {}
    voices: dict[str, list[Battle]] = {}
    for battle in battles:
        if battle.usable:
            voices.setdefault(battle.voice, []).append(battle)
    found = []
    for judge, rows in voices.items():
        if len(_models(rows)) < fewest.get(judge, LEAST):
            continue
        subsets = sorted({row.subset for row in rows})
        parts = {name: [row for row in rows if row.subset == name] for name in subsets} if len(subsets) > 1 else {}
        boards = {name or "no subset": _board(part, how) for name, part in parts.items() if len(_models(part)) > 1}
        found.append({"judge": judge, **_board(rows, how), "subsets": boards})
    return found


def _models(battles: Sequence[Battle]) -> set[str]:
    return {name for battle in battles for name in (battle.first, battle.second)}


def _board(battles: Sequence[Battle], how: Bootstrap) -> dict[str, Any]:
    try:
        return leaderboard(battles, how)
    except DataError as error:
        return {"problem": str(error)}


def table(board: dict[str, Any]) -> str:
    """Return a leaderboard with those of its subsets as text."""
    lines = [f"Leaderboard by {printable(board['judge'])}, Bradley-Terry{_about(board)}", *_rows(board)]
    for name, one in board["subsets"].items():
        lines += [f"  {printable(name)}{_about(one)}", *_rows(one)]
    return "\n".join(lines)


def _about(board: dict[str, Any]) -> str:
    if "problem" in board:
        return f": {board['problem']}"
    ties = f"; ties between equals {100 * board['tie_probability']:.1f}%" if board["tie_probability"] else ""
    return f": {board['n']:,} judgements on {board['prompts']:,} prompts{ties}"


def _rows(board: dict[str, Any]) -> list[str]:
    if "problem" in board:
        return []
    width = max(len("model"), *(len(printable(row["model"])) for row in board["models"]))
    lines = [f"  rank  {'model':<{width}}  Elo [interval]        against the others       wins  ties  losses"]
    for row in board["models"]:
        lines.append(
            f"  {row['rank']:>4}  {printable(row['model']):<{width}}  {_elo(row['elo']):<20}  "
            f"{estimate(row['win_rate']):<22}  {row['wins']:>5} {row['ties']:>5} {row['losses']:>7}"
        )
    if not board["bounded"]:
        lines.append(
            "  A model won or lost all its comparisons with others, so its strength has no finite estimate: half a tie "
            "was added to each pair."
        )
    return lines


def estimate(found: dict[str, Any]) -> str:
    """Write a share with its interval: 6.94% [5.46, 8.52]."""
    low, high = found["low"], found["high"]
    ends = "" if low is None or high is None else f" [{100 * low:.2f}, {100 * high:.2f}]"
    return f"{100 * found['value']:.2f}%{ends}"


def _elo(found: dict[str, Any]) -> str:
    ends = "" if found["low"] is None else f" [{found['low']:.0f}, {found['high']:.0f}]"
    return f"{found['value']:.0f}{ends}"
