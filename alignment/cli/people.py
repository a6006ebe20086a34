"""People who rank answers, and their labels beside a judge's."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from alignment.cli.base import PEOPLE_PANEL, Columns, Format, IgnoreColumns, OnBadRow, entry_keys, verb


@verb(rich_help_panel=PEOPLE_PANEL)
def annotate(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A folder of labels or of an evaluation, or a file of rankings or pairs; with thumbs, of answers.",
        ),
    ],
    ask: Annotated[
        Literal["rank", "pairs", "thumbs"],
        typer.Option(
            help="Rank all answers to a prompt, pick the better of each pair, or find each answer good or bad."
        ),
    ] = "rank",
    guidelines: Annotated[Path | None, typer.Option(metavar="FILE", help="Text that every person is shown.")] = None,
    annotator: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Print a link for this person alone; may be repeated.")
    ] = None,
    overlap: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the items that several people label.")
    ] = 0.0,
    per_item: Annotated[int, typer.Option("--per-item", min=2, help="How many people label each of those.")] = 2,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask about the first so many items alone.")] = None,
    seed: Annotated[int, typer.Option(help="Of the orders of items and answers.")] = 0,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8765,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Another host name under which browsers may open the page."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where the labels go; default: people.jsonl or thumbs.jsonl in or beside RUN."
        ),
    ] = None,
    columns: Columns = None,
    ignore_columns: IgnoreColumns = None,
    layout: Format = None,
    on_bad_row: OnBadRow = "stop",
    export: Annotated[bool, typer.Option("--export", help="Write the labels given so far, and serve nothing.")] = False,
) -> None:
    """Have people rank answers, or find them good or bad, blind, on a local web page."""
    from alignment.data.columns import refuse_unused
    from reward.people import serve
    from reward.people.annotation_queue import Rules

    entry = entry_keys(columns, ignore_columns, layout)
    if export:
        refuse_unused(entry, "--export writes the rankings that people gave already. Leave it out.")
        serve.export(run, output, typer.echo, ask=ask)
        return
    settings = serve.Settings(
        run=run,
        output=output,
        entry=entry,
        on_bad_row=on_bad_row,
        ask=ask,
        guidelines=guidelines,
        annotators=tuple(annotator or ()),
        rules=Rules(overlap, per_item, seed),
        limit=limit,
        host=host,
        port=port,
        allow_hosts=tuple(allow_host or ()),
    )
    serve.annotate(settings, typer.echo)


@verb(rich_help_panel=PEOPLE_PANEL)
def mix(
    labels: Annotated[
        list[str], typer.Argument(metavar="LABELS...", help="Rankings of people and judges: files or run folders.")
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The mixed rankings to write, as .jsonl.")],
    gold: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="People's preferences on some of the pairs: their truth is then known."),
    ] = None,
    smoothing: Annotated[
        float, typer.Option(min=0.0, max=1e6, help="How many labels the prior on each labeller weighs as much as.")
    ] = 10.0,
    bootstrap: Annotated[
        int, typer.Option(min=0, max=100_000, help="Resamples of prompts for the intervals; 0: none.")
    ] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    columns: Columns = None,
    ignore_columns: IgnoreColumns = None,
    layout: Format = None,
    on_bad_row: OnBadRow = "stop",
) -> None:
    """Combine labels of people and judges, weighted by their estimated accuracy (Dawid-Skene)."""
    from reward.people.mix import mix as write

    entry = entry_keys(columns, ignore_columns, layout)
    write(
        labels,
        output,
        gold=gold,
        smoothing=smoothing,
        bootstrap=bootstrap,
        seed=seed,
        entry=entry,
        on_bad_row=on_bad_row,
        tell=typer.echo,
    )
