"""Taking a recipe to more than one process."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from alignment.cli.base import WHOLE_PANEL, verb


@verb(rich_help_panel=WHOLE_PANEL, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def launch(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A stage's recipe, or a pipeline.")],
    on: Annotated[str, typer.Option("--on", metavar="local|slurm|kubernetes|skypilot", help="What runs it.")] = "local",
    nodes: Annotated[int, typer.Option(help="Machines.")] = 1,
    gpus: Annotated[int, typer.Option(help="Processes on each of them; each has a GPU, but under cpu.")] = 1,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="single, ddp, zero1, zero2, zero3, zero3-offload, zero3-nvme, fsdp2, or cpu for processes "
            "without a GPU; default: single, or ddp."
        ),
    ] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Submit the job, or on local run it.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The job file to write; default: here, by the recipe's name.")
    ] = None,
    template: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your changed copy of a file of launch/, to fill in its place.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="The container's image, on Kubernetes.")] = None,
    accelerator: Annotated[
        str | None, typer.Option(help="The kind of GPU that SkyPilot requests; default: H100.")
    ] = None,
) -> None:
    """Write and show the job file and the command that run a recipe on GPUs here or in a cluster; submit them.

    Further `--key value` change keys of the recipe.
    """
    from alignment.launch.command import launch as write
    from alignment.launch.request import Wanted

    wanted = Wanted(
        recipe=recipe,
        place=on,
        nodes=nodes,
        gpus=gpus,
        strategy=strategy,
        overrides=tuple(context.args),
        submit=submit,
        out=out,
        template=template,
        image=image,
        accelerator=accelerator,
    )
    code = write(wanted, typer.echo)
    if code:
        sys.exit(code)
