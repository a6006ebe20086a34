"""What is done with a run's models and labels."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from alignment.cli.base import (
    RESULT_PANEL,
    Aggregate,
    BatchSize,
    Columns,
    Format,
    IgnoreColumns,
    OnBadRow,
    RewardModel,
    TrustRemoteCode,
    entry_keys,
    reward_models,
    verb,
)
from alignment.errors import named_inputs


@verb(rich_help_panel=RESULT_PANEL)
def merge(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run or adapter folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write the merged model to.")],
    tolerance: Annotated[
        float | None,
        typer.Option(min=0.0, help="Largest logit difference accepted; default: what the weights' type can hold."),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, help="Merge only so many directions of a LoRA adapter, trained with dylora.")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Merge a run's adapters into its base, and check that the merged model computes the same logits."""
    from alignment.policy.cut_rank import at_rank
    from alignment.policy.merge import merge as merge_adapters
    from alignment.run.files import naming_the_disk

    cut = at_rank(run, rank) if rank else contextlib.nullcontext(run)
    with naming_the_disk(out), named_inputs(), cut as part:
        difference = merge_adapters(
            part, out, tolerance, trust_remote_code=trust_remote_code, cut_from=run if rank else None
        )
    typer.echo(f"{out}: merged; the largest logit difference from {run} is {difference:.3g}")


@verb(rich_help_panel=RESULT_PANEL)
def switch(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A merged model: base + A.")],
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="The folder to write base + B to; default: MODEL is replaced.")
    ] = None,
    old: Annotated[
        Path | None, typer.Option("--from", metavar="A", help="The run or adapter folder that was merged into MODEL.")
    ] = None,
    new: Annotated[
        Path | None, typer.Option("--to", metavar="B", help="The run or adapter folder to merge in its place.")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Turn a merged model, base + A, into base + B, to the bits that `alignment merge B` writes."""
    from alignment.errors import RecipeError
    from alignment.policy.switch_merged import switch as switch_adapters
    from alignment.run.files import naming_the_disk

    if old is None or new is None:
        raise RecipeError(["switch needs the two adapters: alignment switch MODEL --from A --to B [OUT]."])
    with naming_the_disk(out or model), named_inputs():
        place = switch_adapters(model, old, new, out, trust_remote_code=trust_remote_code)
    typer.echo(f"{place}: switched from {old} to {new}")


@verb(rich_help_panel=RESULT_PANEL)
def combine(
    words: Annotated[
        list[str], typer.Argument(metavar="A:0.7 B:0.3 OUT", help="Run or adapter folders with weights, and where to.")
    ],
    method: Annotated[
        str, typer.Option(metavar="NAME", help="cat (the exact sum), linear, ties, dare_linear or dare_ties.")
    ] = "cat",
    density: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Share of an adapter's numbers that ties and DARE keep.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of DARE's random choice.")] = 0,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Combine LoRA adapters of one base into one adapter."""
    from alignment.policy.combine import combine as combine_adapters
    from alignment.policy.combine import parts_of
    from alignment.run.files import naming_the_disk

    *parts, place = words
    out = Path(place)
    with naming_the_disk(out), named_inputs():
        difference = combine_adapters(
            parts_of(parts), out, method, density=density, seed=seed, trust_remote_code=trust_remote_code
        )
    typer.echo(f"{out}: combined by {method}; the largest logit difference from the sum is {difference:.3g}")


@verb(rich_help_panel=RESULT_PANEL)
def score(
    model: RewardModel,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="JSONL: `prompt` (text or messages) with `answer` or `responses`, or `messages`.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(help="Where to write the rows with their `score`; default: standard output.")
    ] = None,
    ignore_columns: IgnoreColumns = None,
    batch_size: BatchSize = 64,
    aggregate: Aggregate = "mean",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Score answers with a reward model."""
    from reward.bench.command import aggregate_of
    from reward.models.score_file import score_file

    how = aggregate_of(aggregate)
    score_file(
        reward_models(model),
        str(file),
        str(output) if output else None,
        ignored=entry_keys(None, ignore_columns, None)["ignore_columns"],
        batch_size=batch_size,
        aggregate=how,
        trust_remote_code=trust_remote_code,
    )


@verb(rich_help_panel=RESULT_PANEL)
def bench(
    model: RewardModel,
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Preference files of any known layout, or Hub ids.")
    ],
    json_out: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, metavar="OUT", help="Write all numbers here.")
    ] = None,
    subset: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="What names a row's subset; default: subset or section, else the file."),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="A prompt that is text is a user's message, as RewardBench's are.")
    ] = False,
    max_samples: Annotated[int | None, typer.Option("--max_samples", min=1, help="Rows of each file.")] = None,
    on_bad_row: OnBadRow = "stop",
    columns: Columns = None,
    ignore_columns: IgnoreColumns = None,
    layout: Format = None,
    batch_size: BatchSize = 64,
    aggregate: Aggregate = "mean",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure a reward model on answers whose order, or gold score, is known."""
    from reward.bench.command import run_bench

    run_bench(
        reward_models(model),
        files,
        json_out=json_out,
        column=subset,
        chat=chat,
        max_samples=max_samples,
        on_bad_row=on_bad_row,
        entry=entry_keys(columns, ignore_columns, layout),
        batch_size=batch_size,
        aggregate=aggregate,
        trust_remote_code=trust_remote_code,
    )


@verb("serve-reward", rich_help_panel=RESULT_PANEL)
def serve_reward(
    model: RewardModel,
    host: Annotated[str, typer.Option(help="Whom to answer; the default is this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8766,
    api_key_env: Annotated[
        str,
        typer.Option("--api_key_env", metavar="NAME", help="The variable with the bearer token; unset: a new one."),
    ] = "ALIGNMENT_REWARD_KEY",
    batch_size: BatchSize = 64,
    aggregate: Aggregate = "mean",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Answer HTTP requests for scores, as PPO's scorer of kind http sends them."""
    from reward.bench.command import aggregate_of
    from reward.serving.serve import Settings, serve

    settings = Settings(
        reward_models(model), host, port, api_key_env, batch_size, aggregate_of(aggregate), trust_remote_code
    )
    serve(settings, lambda line: typer.echo(line))


@verb(rich_help_panel=RESULT_PANEL)
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Run folders, or a folder of them.")],
    out: Annotated[
        Path | None, typer.Option(help="The page to write; default: report.html in the first folder.")
    ] = None,
) -> None:
    """Write one self-contained HTML page with the results of runs."""
    from alignment.report import build

    typer.echo(str(build(runs, out or runs[0] / "report.html")))


@verb(rich_help_panel=RESULT_PANEL)
def audit(
    labels: Annotated[
        list[Path], typer.Argument(metavar="LABELS...", help="Label runs, labels.jsonl files, or recorded verdicts.")
    ],
    gold: Annotated[
        Path | None, typer.Option(help="People's preferences on the same answers, in any layout of docs/data.md.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "--html", help="The page to write; default: audit.html beside the labels.")
    ] = None,
    json: Annotated[Path | None, typer.Option(dir_okay=False, help="Where to write all numbers.")] = None,
    suggest: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Choose the N comparisons that people should check.")
    ] = None,
    suggestions: Annotated[
        Path | None, typer.Option(help="Where to write those; default: suggested.jsonl beside the labels.")
    ] = None,
    gate: Annotated[
        Path | None, typer.Option(metavar="RECIPE", help="A label recipe whose gate to check; missed: exit code 3.")
    ] = None,
    calibrate: Annotated[
        str | None, typer.Option(metavar="METHOD", help="temperature or isotonic, fitted on people's preferences.")
    ] = None,
    calibrated: Annotated[
        Path | None, typer.Option(help="Where to write the calibrated labels; default: calibrated.jsonl beside them.")
    ] = None,
    columns: Columns = None,
    ignore_columns: IgnoreColumns = None,
    layout: Format = None,
    on_bad_row: OnBadRow = "stop",
) -> None:
    """Measure a judge's labels: bias, consistency, agreement with people, calibration, cost."""
    from alignment.data.columns import refuse_unused
    from alignment.errors import AlignmentError
    from reward.audit.command import Outputs, beside, method_of, run
    from reward.audit.gate import check, gate_of
    from reward.audit.items import Reading

    if suggestions is not None and suggest is None:
        raise AlignmentError("--suggestions names a file for what --suggest N chooses; add --suggest, or leave it out.")
    if calibrated is not None and calibrate is None:
        raise AlignmentError("--calibrated names a file for what --calibrate METHOD fits; add it, or leave this out.")
    limits, method = gate_of(gate) if gate else None, method_of(calibrate)
    outputs = Outputs(
        page=out or beside(labels, "audit.html"),
        json=json,
        suggestions=(suggestions or beside(labels, "suggested.jsonl")) if suggest else None,
        calibrated=(calibrated or beside(labels, "calibrated.jsonl")) if method else None,
    )
    voted = gold or (Path(limits.gold) if limits and limits.gold else None)
    entry = entry_keys(columns, ignore_columns, layout)
    if voted is None:
        refuse_unused(entry, "they are for the file of --gold, and none is given")
    reading = Reading(entry, on_bad_row)
    found = run(labels, voted, outputs=outputs, reading=reading, suggestions=suggest, calibrate=method, say=typer.echo)
    if limits:
        check(limits, found, voices=voted is not None)


@verb(rich_help_panel=RESULT_PANEL)
def winrate(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Judgements: annotations.json of AlpacaEval, outputs of JudgeBench, our labels and evaluations, "
            "recorded verdicts; and answers, model_outputs.json, that name the models of labels.",
        ),
    ],
    baseline: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Count win rates against this model; default: as in the files.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="JUDGE", help="Count this judge or person alone; people: all persons.")
    ] = None,
    length_control: Annotated[
        str,
        typer.Option(
            "--length_control",
            metavar="auto|none|minimal|FILE",
            help="AlpacaEval's length-controlled win rate: its df_gamed.csv from the Hub, or FILE; minimal: without.",
        ),
    ] = "auto",
    level: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Confidence level of the bootstrap intervals.")
    ] = 0.95,
    bootstrap: Annotated[int, typer.Option(min=100, max=100_000, help="Resamples of prompts.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    json_out: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, metavar="OUT", help="Write all numbers here.")
    ] = None,
    columns: Columns = None,
    ignore_columns: IgnoreColumns = None,
    layout: Format = None,
    on_bad_row: OnBadRow = "stop",
) -> None:
    """Compute win rates from files of judgements: soft, discrete and length-controlled, with intervals."""
    from alignment.errors import DataError
    from alignment.evaluate.statistics import Bootstrap
    from alignment.standings.command import Options, run
    from reward.labels.recordings import rankings_of

    options = Options(
        baseline=baseline,
        by=by,
        length_control=length_control,
        how=Bootstrap(level, bootstrap, seed),
        json=json_out,
        on_bad_row=on_bad_row,
        entry=entry_keys(columns, ignore_columns, layout),
    )
    with named_inputs(DataError):
        run(files, options, recordings=lambda path: rankings_of(path, on_bad_row), say=typer.echo)
