"""The command `alignment`: parses, hands on, and tells errors in one line. Importing it imports no torch.

The top floor: the one module of `alignment` that calls `recipes` and `reward`, inside the verb that needs them.
"""

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    name="alignment",
    help="Teach a language model what people prefer: fine-tune, label, train a reward model, DPO or PPO, evaluate.",
    epilog="Start with `alignment run recipes/tiny/pipeline.yaml`: the whole way, offline, in minutes on two cores.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
STAGE_PANEL = "Stages, each `--config FILE [--key value ...]`; `--help` lists the keys"
MODEL_HELP = "A reward model's run folder, or a Hub id; several with commas between are an ensemble."
AGGREGATE_HELP = "How an ensemble's scores become one; lcb is the mean less one standard deviation."
WHOLE_PANEL = "The whole way"
PEOPLE_PANEL = "People's labels"
RESULT_PANEL = "What came of it"


def _stage(name: str, arguments: list[str]) -> None:
    """Run a stage's script; faults of the recipe are told before anything heavy is imported."""
    from alignment.run.script import script

    def run() -> None:
        from alignment.config import load_recipe

        load_recipe(name, arguments)
        importlib.import_module(f"recipes.{name}").main(arguments)

    script(run)


@app.command(rich_help_panel=STAGE_PANEL, context_settings=PASS_THROUGH)
def sft(context: typer.Context) -> None:
    """Fine-tune a model on demonstrations."""
    _stage("sft", context.args)


@app.command(rich_help_panel=STAGE_PANEL, context_settings=PASS_THROUGH)
def label(context: typer.Context) -> None:
    """Sample answers from a policy and have a judge rank them."""
    _stage("label", context.args)


@app.command(rich_help_panel=STAGE_PANEL, context_settings=PASS_THROUGH)
def reward(context: typer.Context) -> None:
    """Train a reward model on rankings and pairs."""
    _stage("reward", context.args)


@app.command(rich_help_panel=STAGE_PANEL, context_settings=PASS_THROUGH)
def dpo(context: typer.Context) -> None:
    """Align a policy with rankings directly (DPO and its kin)."""
    _stage("dpo", context.args)


@app.command(rich_help_panel=STAGE_PANEL, context_settings=PASS_THROUGH)
def ppo(context: typer.Context) -> None:
    """Align a policy with a reward model (PPO)."""
    _stage("ppo", context.args)


@app.command(rich_help_panel=STAGE_PANEL, context_settings=PASS_THROUGH)
def evaluate(context: typer.Context) -> None:
    """Compare candidates with a baseline on held-out prompts."""
    _stage("evaluate", context.args)


@app.command(rich_help_panel=WHOLE_PANEL)
def check(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE...", help="Recipes of stages, and pipelines.")],
) -> None:
    """Tell every fault of recipes and pipelines; reads nothing else and writes nothing."""
    from alignment.run.script import script

    def run() -> None:
        from alignment.config import check_file
        from alignment.errors import RecipeError

        faults: list[str] = []
        for path in recipes:
            try:
                check_file(path)
            except RecipeError as error:
                faults += error.faults
            else:
                typer.echo(f"{path}: OK")
        if faults:
            raise RecipeError(faults)

    script(run)


@app.command(rich_help_panel=WHOLE_PANEL, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def plan(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A stage's recipe, or a pipeline.")],
    gpus: Annotated[int, typer.Option(help="Devices, all nodes together.")] = 1,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Of each device, 80GiB or 24GB, say.")] = "80GiB",
    strategy: Annotated[
        str | None,
        typer.Option(help="single, ddp, zero1, zero2, zero3, zero3-offload or fsdp2; default: single, or ddp."),
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Plan for CPU processes.")] = False,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Rows of data, where they are not here to be counted.")
    ] = None,
    tflops: Annotated[
        float | None, typer.Option(help="A device's dense peak in bf16; an H100 has 989. Default: an A100's 312.")
    ] = None,
    bandwidth: Annotated[
        float | None, typer.Option(help="TB/s of its memory; an H100 has 3.35. Default: an A100's 2.0.")
    ] = None,
    utilization: Annotated[float, typer.Option(help="Share of the peak that training reaches.")] = 0.4,
    solve: Annotated[
        bool, typer.Option("--solve", help="Find the cheapest strategy and the largest microbatch that fit.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Where to write all numbers.")] = None,
) -> None:
    """Tell before anything loads whether a recipe fits, and how long it takes; reads configurations alone.

    Further `--key value` change keys of the recipe. Ends with 3 where a stage does not fit.
    """
    from alignment.run.script import script

    def start() -> None:
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
        fits = plan_file(
            recipe, planned, overrides=context.args, rows=rows, solve=solve, json_out=json, console=console
        )
        if not fits:
            sys.exit(3)

    script(start)


@app.command(rich_help_panel=WHOLE_PANEL)
def doctor(
    recipes: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE...]", help="Recipes of stages, and pipelines.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="Processes that will run; default: this machine's GPUs.")] = None,
    strategy: Annotated[str | None, typer.Option(help="As of alignment plan.")] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Of each GPU; default: this machine's.")] = None,
    json: Annotated[Path | None, typer.Option(help="Where to write all findings.")] = None,
) -> None:
    """Look at this machine and at what recipes need of it; each finding with its remedy.

    Ends with 1 where something is at fault. Of data the first rows are read; no model is loaded.
    """
    from alignment.run.script import script

    def start() -> None:
        from rich.console import Console

        from alignment.doctor.command import doctor as look
        from alignment.doctor.environment import this_machine

        console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        machine = this_machine(gpus=gpus, memory=memory, strategy=strategy)
        if not look(recipes or [], machine, json_out=json, console=console):
            sys.exit(1)

    script(start)


@app.command(rich_help_panel=WHOLE_PANEL)
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
            metavar="COMMAND", help="Start training stages with this, 'accelerate launch --num_processes 2', say."
        ),
    ] = None,
) -> None:
    """Run a pipeline: what is missing or stale is run, an interrupted stage goes on, the rest is skipped."""
    from alignment.run.script import script

    def start() -> None:
        from alignment.run.pipeline import run_pipeline

        code = run_pipeline(pipeline, start=from_stage, only=only, output_dir=output_dir, seed=seed, launch=launch)
        if code:
            sys.exit(code)

    script(start)


@app.command(rich_help_panel=RESULT_PANEL)
def merge(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run or adapter folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write the merged model to.")],
    tolerance: Annotated[
        float | None,
        typer.Option(min=0.0, help="Largest logit difference accepted; default: what the weights' type can hold."),
    ] = None,
) -> None:
    """Merge a run's adapters into its base, and prove that the merged model says the same."""
    from alignment.run.script import script

    def start() -> None:
        from alignment.policy.merge import merge as merge_adapters
        from alignment.run.files import naming_the_disk

        with naming_the_disk(out):
            difference = merge_adapters(run, out, tolerance)
        typer.echo(f"{out}: merged; the largest logit difference from {run} is {difference:.3g}")

    script(start)


@app.command(rich_help_panel=RESULT_PANEL)
def score(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSONL with `prompt` and `answer`, or `responses`, in each row.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="Where to write the rows with their `score`; default: standard output.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch_size", min=1, help="Answers scored together.")] = 64,
    aggregate: Annotated[str, typer.Option(metavar="mean|min|lcb", help=AGGREGATE_HELP)] = "mean",
) -> None:
    """Score answers with a reward model."""
    from alignment.run.script import script

    def start() -> None:
        from reward.bench.command import aggregate_of
        from reward.scorers import score_file

        how = aggregate_of(aggregate)
        score_file(model, str(file), str(output) if output else None, batch_size=batch_size, aggregate=how)

    script(start)


@app.command(rich_help_panel=PEOPLE_PANEL)
def annotate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A label run's folder, or any file of rankings or pairs.")],
    ask: Annotated[
        Literal["rank", "pairs"], typer.Option(help="Rank all answers to a prompt, or pick the better of each pair.")
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
        typer.Option("--allow-host", metavar="NAME", help="Another name under which browsers may ask for the page."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the rankings go; default: people.jsonl in or beside RUN.")
    ] = None,
    export: Annotated[
        bool, typer.Option("--export", help="Write the rankings given so far, and serve nothing.")
    ] = False,
) -> None:
    """Have people rank answers, blind, on a local web page."""
    from alignment.run.script import script

    def start() -> None:
        from reward.people import serve
        from reward.people.desk import Rules

        if export:
            serve.export(run, output, typer.echo)
            return
        settings = serve.Settings(
            run=run,
            output=output,
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

    script(start)


@app.command(rich_help_panel=RESULT_PANEL)
def bench(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Preference files of any known layout, or Hub ids.")
    ],
    json_out: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Write all numbers here.")] = None,
    subset: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="What names a row's subset; default: subset or section, else the file."),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="A prompt that is text is a user's message, as RewardBench's are.")
    ] = False,
    max_samples: Annotated[int | None, typer.Option("--max_samples", min=1, help="Rows of each file.")] = None,
    on_bad_row: Annotated[
        str, typer.Option("--on_bad_row", metavar="stop|skip", help="What to do about rows that cannot be scored.")
    ] = "stop",
    batch_size: Annotated[int, typer.Option("--batch_size", min=1, help="Answers scored together.")] = 64,
    aggregate: Annotated[str, typer.Option(metavar="mean|min|lcb", help=AGGREGATE_HELP)] = "mean",
) -> None:
    """Measure a reward model on answers whose order, or gold score, is known."""
    from alignment.run.script import script

    def start() -> None:
        from reward.bench.command import run_bench

        run_bench(
            model,
            files,
            json_out=json_out,
            column=subset,
            chat=chat,
            max_samples=max_samples,
            on_bad_row=on_bad_row,
            batch_size=batch_size,
            aggregate=aggregate,
        )

    script(start)


@app.command("serve-reward", rich_help_panel=RESULT_PANEL)
def serve_reward(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    host: Annotated[str, typer.Option(help="Whom to answer; the default is this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8766,
    api_key_env: Annotated[
        str,
        typer.Option("--api_key_env", metavar="NAME", help="The variable with the bearer token; unset: a new one."),
    ] = "ALIGNMENT_REWARD_KEY",
    batch_size: Annotated[int, typer.Option("--batch_size", min=1, help="Answers scored together.")] = 64,
    aggregate: Annotated[str, typer.Option(metavar="mean|min|lcb", help=AGGREGATE_HELP)] = "mean",
) -> None:
    """Answer HTTP requests for scores, as PPO's scorer of kind http sends them."""
    from alignment.run.script import script

    def start() -> None:
        from reward.bench.command import aggregate_of
        from reward.serving.serve import Settings, serve

        settings = Settings(model, host, port, api_key_env, batch_size, aggregate_of(aggregate))
        serve(settings, lambda line: typer.echo(line))

    script(start)


@app.command(rich_help_panel=PEOPLE_PANEL)
def mix(
    labels: Annotated[
        list[str], typer.Argument(metavar="LABELS...", help="Rankings of people and judges: files or run folders.")
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The mixed rankings to write, as .jsonl.")],
    smoothing: Annotated[
        float, typer.Option(min=0.0, help="How many labels the prior on each labeller weighs as much as.")
    ] = 10.0,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples of prompts for the intervals; 0: none.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
) -> None:
    """Mix labels of people and judges, each trusted as far as it proves right (Dawid-Skene)."""
    from alignment.run.script import script

    def start() -> None:
        from reward.people.mix import mix as write

        write(labels, output, smoothing=smoothing, bootstrap=bootstrap, seed=seed, tell=typer.echo)

    script(start)


@app.command(rich_help_panel=RESULT_PANEL)
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Run folders, or a folder of them.")],
    out: Annotated[
        Path | None, typer.Option(help="The page to write; default: report.html in the first folder.")
    ] = None,
) -> None:
    """Make one self-contained HTML page of what ran and what came of it."""
    from alignment.run.script import script

    def start() -> None:
        from alignment.report import build

        typer.echo(str(build(runs, out or runs[0] / "report.html")))

    script(start)


@app.command(rich_help_panel=RESULT_PANEL)
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
    json: Annotated[Path | None, typer.Option(help="Where to write all numbers.")] = None,
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
) -> None:
    """Measure a judge's labels: bias, consistency, agreement with people, calibration, cost."""
    from alignment.run.script import script

    def start() -> None:
        from reward.audit.command import Outputs, beside, method_of, run
        from reward.audit.gate import check, gate_of

        limits, method = gate_of(gate) if gate else None, method_of(calibrate)
        outputs = Outputs(
            page=out or beside(labels, "audit.html"),
            json=json,
            suggestions=(suggestions or beside(labels, "suggested.jsonl")) if suggest else None,
            calibrated=(calibrated or beside(labels, "calibrated.jsonl")) if method else None,
        )
        voted = gold or (Path(limits.gold) if limits and limits.gold else None)
        found = run(labels, voted, outputs=outputs, suggestions=suggest, calibrate=method, say=typer.echo)
        if limits:
            check(limits, found, voices=voted is not None)

    script(start)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"alignment-stack {version('alignment-stack')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before a verb."""


def main() -> None:
    """Entry point of the command `alignment`."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a judge's `module:function` may lie in the working folder, as for `python -m`
    app()


if __name__ == "__main__":
    main()
