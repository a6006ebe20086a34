"""Checking, planning, looking at the machine, and running a pipeline."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from alignment.cli.base import WHOLE_PANEL, verb


@verb(rich_help_panel=WHOLE_PANEL)
def check(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE...", help="Recipes of stages, and pipelines.")],
    data: Annotated[
        bool, typer.Option("--data", help="Read the data too: layouts, keys, counts and bad rows; no model is needed.")
    ] = False,
) -> None:
    """Check recipes and pipelines for faults. Reads no model, and no data without --data; writes nothing."""
    from alignment.config import check_file
    from alignment.errors import RecipeError
    from alignment.train.trial import require_accepted

    faults: list[str] = []
    for path in recipes:
        try:
            checked = check_file(path)
            require_accepted(checked, here=False)
            if data:
                from alignment.doctor.data import require_data

                require_data(checked, typer.echo)
        except RecipeError as error:
            faults += error.faults
        else:
            typer.echo(f"{path}: OK")
    if faults:
        raise RecipeError(faults)


@verb(rich_help_panel=WHOLE_PANEL, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def preview(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A stage's recipe.")],
    rows: Annotated[int | None, typer.Option(metavar="N", help="Rows to show; default: 20.")] = None,
    json: Annotated[Path | None, typer.Option(dir_okay=False, metavar="FILE", help="Where to write the rows.")] = None,
    html: Annotated[Path | None, typer.Option(dir_okay=False, metavar="FILE", help="Where to write a page.")] = None,
) -> None:
    """Show what a recipe will train, row by row: tokens with a loss, what is cut, where each part comes from.

    Further `--key value` change keys of the recipe. Ends with 2 where training would refuse, with its message. No
    weights are loaded.
    """
    from alignment.cli.arguments import require_arguments
    from alignment.cli.stages import preview_reader
    from alignment.preview.command import preview as read
    from alignment.preview.page import write_page
    from alignment.preview.terminal import console, show
    from alignment.run.files import write_json

    found = read(recipe, context.args, rows, preview_reader)
    require_arguments({"json": json, "html": html, "inputs": found.inputs()})
    if json is not None:
        write_json(json, found.to_json())
    if html is not None:
        write_page(html, Path(recipe).name, found.stage, found.rows, found.tokenizer, found.stops)
    show(found.stage, found.rows, found.tokenizer, found.stops, console())


@verb(rich_help_panel=WHOLE_PANEL, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def plan(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A stage's recipe, or a pipeline.")],
    gpus: Annotated[int, typer.Option(help="Devices, all nodes together.")] = 1,
    memory: Annotated[
        str, typer.Option(metavar="SIZE", help="Memory of each device, such as 80GiB or 24GB.")
    ] = "80GiB",
    strategy: Annotated[
        str | None,
        typer.Option(help="single, ddp, zero1, zero2, zero3, zero3-offload, zero3-nvme or fsdp2."),
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Plan for CPU processes.")] = False,
    rows: Annotated[
        int | None, typer.Option(min=1, max=10**12, help="Rows of data, where they are not here to be counted.")
    ] = None,
    tflops: Annotated[
        float | None, typer.Option(help="A device's dense peak in bf16; an H100 has 989. Default: an A100's 312.")
    ] = None,
    bandwidth: Annotated[
        float | None, typer.Option(help="TB/s of its memory; an H100 has 3.35. Default: an A100's 2.0.")
    ] = None,
    utilization: Annotated[float, typer.Option(help="Share of the peak that training reaches.")] = 0.4,
    solve: Annotated[
        bool,
        typer.Option("--solve", help="Find the largest microbatch that fits, and the cheapest strategy for one."),
    ] = False,
    json: Annotated[Path | None, typer.Option(dir_okay=False, help="Where to write all numbers.")] = None,
) -> None:
    """Compute the memory and time of a recipe, from configurations alone.

    `--key value` overrides keys of the recipe. The exit code is 3 if a stage does not fit.
    """
    from rich.console import Console

    from alignment.planner.command import plan_file
    from alignment.planner.machine import machine

    planned = machine(
        gpus=gpus,
        memory=memory,
        strategy=strategy,
        cpu=cpu,
        tflops=tflops,
        bandwidth=bandwidth,
        utilization=utilization,
    )
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    fits = plan_file(recipe, planned, overrides=context.args, rows=rows, solve=solve, json_out=json, console=console)
    if not fits:
        sys.exit(3)


@verb(rich_help_panel=WHOLE_PANEL, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def doctor(
    recipes: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE...]", help="Recipes of stages, and pipelines.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="Processes that will run; default: this machine's GPUs.")] = None,
    strategy: Annotated[str | None, typer.Option(help="As of alignment plan.")] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Of each GPU; default: this machine's.")] = None,
    rows: Annotated[int, typer.Option(min=1, max=10**9, help="Rows of data to check, evenly spaced.")] = 2000,
    json: Annotated[Path | None, typer.Option(dir_okay=False, help="Where to write all findings.")] = None,
) -> None:
    """Check this machine, and whether it meets the needs of recipes; each finding has a remedy.

    `--key value` overrides keys of a single recipe. The exit code is 1 if there is a fault. Large data are sampled;
    functions that score answers are tried; no model is loaded.
    """
    from rich.console import Console

    from alignment.doctor.command import doctor as look
    from alignment.doctor.environment import this_machine
    from reward.scorers import try_scorers

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    machine = this_machine(gpus=gpus, memory=memory, strategy=strategy)
    words = recipes or []
    files = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
    is_sound = look(
        words[:files],
        machine,
        overrides=words[files:],
        json_out=json,
        console=console,
        sample=rows,
        try_scorers=try_scorers,
    )
    if not is_sound:
        sys.exit(1)


@verb(rich_help_panel=WHOLE_PANEL)
def run(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline.yaml.")],
    from_stage: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="Run this stage and all after it, finished or not.")
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="STAGE", help="Run this stage alone, finished or not.")] = None,
    output_dir: Annotated[
        str | None,
        typer.Option("--output_dir", metavar="DIR", help="Put everything here instead of the pipeline's own folder."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of every stage, instead of their recipes'.")] = None,
    launch: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Command that starts training stages, such as 'accelerate launch --num_processes 2'.",
        ),
    ] = None,
) -> None:
    """Run a pipeline: run missing and stale stages, resume interrupted ones, and skip the others."""
    from alignment.pipeline.runner import run_pipeline

    code = run_pipeline(pipeline, start=from_stage, only=only, output_dir=output_dir, seed=seed, launch=launch)
    if code:
        sys.exit(code)


@verb("import", rich_help_panel=WHOLE_PANEL)
def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A recipe of TRL, LLaMA-Factory or axolotl.")],
    from_peer: Annotated[
        str | None,
        typer.Option("--from", metavar="trl|llamafactory|axolotl", help="Whose recipe it is; default: by its keys."),
    ] = None,
    output_dir: Annotated[
        Path, typer.Option("--output_dir", metavar="DIR", help="The folder that the recipe is written to.")
    ] = Path("."),
    stage: Annotated[
        str | None, typer.Option("--stage", help="The stage here, for a file of TRL whose keys do not decide it.")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, max=10**6, help="Processes (GPUs) that the recipe was written for; default: num_processes of FILE."
        ),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, max=10**12, help="Rows of its data, where epochs become a number of answers.")
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option("--drop", metavar="KEY", help="A refused key to give up; may be repeated.")
    ] = None,
) -> None:
    """Convert a recipe of another framework; list each of its keys as translated, dropped or refused, with the reason.

    Writes FILE.STAGE.yaml, which `alignment check` accepts, or nothing. Ends with 2 where a key is refused.
    """
    from alignment.importing.command import import_file
    from alignment.importing.conversion import Options

    import_file(file, from_peer, Options(stage, processes, rows, tuple(drop or ())), output_dir, typer.echo)
