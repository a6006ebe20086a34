"""The gate after an evaluation in a pipeline: the win rates that it must have shown."""

from collections.abc import Iterator
from pathlib import Path

from alignment.config.schema import EvaluateRecipe, WinRateEntry
from alignment.config.schema.require import PEOPLE
from alignment.errors import GateError, printable
from alignment.evaluate.statistics import Bootstrap
from alignment.standings.battles import Battle, Match, matches
from alignment.standings.leaderboards import estimate
from alignment.standings.rates import rates
from alignment.standings.reading import NothingJudged, read_battles


def check_win_rates(name: str, recipe: EvaluateRecipe, wanted: WinRateEntry) -> list[str]:
    """Return the win rates that hold, as text.

    Args:
        name: of the stage, in messages.
    Raises: GateError with every figure and what it misses; DataError if answers or people's labels cannot be read.
    """
    how = Bootstrap(recipe.confidence_level, recipe.bootstrap_samples, recipe.seed)
    found = {match.first: match for match in _judged(recipe, wanted)}
    lines: list[str] = []
    missed = False
    for model in wanted.of or [each.name for each in recipe.candidates if each.name != wanted.against]:
        if model not in found:
            raise GateError(f"{name}: {_nobody(recipe, wanted, model)}")
        line, short = _line(found[model], wanted, how)
        lines.append(f"{name}: {line}")
        missed = missed or short
    if missed:
        raise GateError("\n".join([*lines, "The pipeline stops here: its `require` does not hold. Correct the policy, "
                                   "or change `require`; finished stages are kept."]))  # fmt: skip
    return lines


def _judged(recipe: EvaluateRecipe, wanted: WinRateEntry) -> Iterator[Match]:
    rows = [
        row
        for row in _rows(recipe)
        if wanted.by in (row.voice, row.judge) and wanted.against in (row.first, row.second)
    ]
    return matches(rows, wanted.against)


def _rows(recipe: EvaluateRecipe) -> list[Battle]:
    try:
        return read_battles([Path(recipe.output_dir)]).rows
    except NothingJudged:  # an evaluation by tasks, whose answers nobody has compared yet
        return []


def _line(match: Match, wanted: WinRateEntry, how: Bootstrap) -> tuple[str, bool]:
    """Return a win rate with its verdict as text, and whether it misses a limit."""
    numbers = rates(match, how)
    who = printable(f"{match.first} against {match.second} by {match.judge}")
    rate = numbers["discrete_win_rate"]
    if rate is None:
        return f"{who}: no verdict", True
    figure = (
        f"{who}: win rate {estimate(rate)}, {numbers['wins']} wins, {numbers['draws']} draws, {numbers['losses']} "
        f"losses on {numbers['prompts']} prompts"
    )
    short = []
    low = rate["low"]
    if numbers["prompts"] < wanted.min_prompts:
        short.append(f"fewer prompts than min_prompts {wanted.min_prompts}")
    if wanted.low is not None and (low is None or low < wanted.low):
        end = "no interval from one prompt" if low is None else f"the interval begins at {100 * low:.2f}%"
        short.append(f"{end}, low is {wanted.low:g}")
    if wanted.value is not None and rate["value"] < wanted.value:
        short.append(f"value is {wanted.value:g}")
    return f"{figure}: {'; '.join(short) or 'holds'}", bool(short)


def _nobody(recipe: EvaluateRecipe, wanted: WinRateEntry, model: str) -> str:
    what = f"require.win_rate: nobody named {printable(wanted.by)} has compared {model} with {wanted.against}"
    if wanted.by == PEOPLE:
        return (
            f"require.win_rate: people have not compared {model} with {wanted.against} yet. Have them do so with "
            f"`alignment annotate {recipe.output_dir}`, then run the pipeline again; it goes on from here."
        )
    voices = sorted({row.voice for row in _rows(recipe)})
    return f"{what}; the evaluation has judgements by {', '.join(map(printable, voices)) or 'nobody'}."
