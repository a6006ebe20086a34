"""A preview on a terminal: colours where it has them, else marks."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from alignment.errors import printable
from alignment.preview.rows import Row, Stage
from alignment.preview.segments import Piece, parted, pieces
from alignment.preview.wording import facts, from_where, heading, summary
from alignment.report.wording import visible

MARKS = {"trained": "⟦⟧", "special": "‹›", "cut": "✂"}
LEGEND = "⟦ ⟧ trained   ‹ › one control token   ✂ … ✂ cut off"
PROMPT, TRAINED, CONTROL, STOP, CUT = "dim", "bold green", "cyan", "bold reverse green", "strike red"


def show(stage: Stage, rows: Sequence[Row], tokenizer: Any, stops: Sequence[int], console: Console) -> None:
    """Print the counts of a stage and some of its rows."""
    for line in summary(stage, len(rows)):
        _print(console, Text(printable(line)))
    colours = console.is_terminal and not console.no_color
    if not colours:
        _print(console, Text(LEGEND))
    for number, row in enumerate(rows, 1):
        _print(console, Text(f"\n{printable(heading(number, row))}", style="bold"))
        if not row.sequences:
            for part in row.parts:
                _print(console, Text(visible(f"{part.name}: {part.text}")))
        prompt, texts = parted([pieces(tokenizer, tokens, stops) for tokens in row.sequences.values()])
        if prompt:
            _print(console, _text(prompt, colours))
        for (name, tokens), text in zip(row.sequences.items(), texts, strict=True):
            told = facts(tokens, tokenizer, stops)
            _print(console, Text(f"{name}: {told}" if len(row.sequences) > 1 else told, style="italic"))
            _print(console, _text(text, colours))
        for name, read in row.read_by.items():
            _print(console, Text(f"{printable(name)} reads:", style="italic"))
            _print(console, Text(visible(read)))
        if row.question is not None:
            _print(console, Text(f"the {stage.asked} is asked:", style="italic"))
            _print(console, Text(visible(row.question)))
        if row.parts:
            _print(console, Text(f"from {printable(from_where(row))}", style="dim"))


def _print(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=True)


def _text(found: Sequence[Piece], colours: bool) -> Text:
    return Text.assemble(*_coloured(found)) if colours else Text("".join(_marked(found)))


def _coloured(found: Sequence[Piece]) -> Iterator[tuple[str, str]]:
    for piece in found:
        style = CUT if piece.cut else TRAINED if piece.trained else PROMPT
        if piece.special and not piece.cut:
            style = STOP if piece.stop and piece.trained else f"{style} {CONTROL}"
        yield visible(piece.text), style


def _marked(found: Sequence[Piece]) -> Iterator[str]:
    trained = cut = False
    for piece in found:
        if trained and not piece.trained:
            yield "⟧"
        if piece.cut and not cut:
            yield MARKS["cut"]
        if piece.trained and not trained:
            yield "⟦"
        trained, cut = piece.trained, piece.cut
        yield f"‹{visible(piece.text)}›" if piece.special else visible(piece.text)
    yield "⟧" if trained else MARKS["cut"] if cut else ""


def console() -> Console:
    """Return the console of standard output."""
    return Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 120)
