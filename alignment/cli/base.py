"""What all verbs of the command `alignment` hang on."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(
    name="alignment",
    help="Align a language model with preferences: SFT, labels, reward model, DPO, PPO and others, evaluation.",
    epilog="Try `alignment run recipes/tiny/pipeline.yaml`: all stages, offline, in minutes on two cores.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

STAGE_PANEL = "Stages, each `--config FILE [--key value ...]`; `--help` lists the keys"
WHOLE_PANEL = "Recipes and pipelines"
PEOPLE_PANEL = "People's labels"
RESULT_PANEL = "Results"

RewardModel = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A reward model's run folder, or a Hub id; several with commas between are an ensemble."
    ),
]
BatchSize = Annotated[int, typer.Option("--batch_size", min=1, help="Answers scored together.")]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust_remote_code", help="Run Python code that the model's folder brings; without it such code never runs."
    ),
]
Aggregate = Annotated[
    str,
    typer.Option(
        metavar="mean|min|lcb", help="How an ensemble's scores become one; lcb is the mean less one standard deviation."
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(metavar="KEY=COLUMN,...", help="Read columns of a file under a layout's keys: prompt=question."),
]
IgnoreColumns = Annotated[
    str | None, typer.Option("--ignore_columns", metavar="KEY,...", help="Keys of rows and messages to leave out.")
]
Format = Annotated[str | None, typer.Option("--format", metavar="NAME", help="The files' layout; default: found.")]
OnBadRow = Annotated[
    Literal["stop", "skip"],
    typer.Option("--on_bad_row", metavar="stop|skip", help="What to do about rows that cannot be used."),
]
Dtype = Annotated[
    Literal["auto", "bfloat16", "float16", "float32"] | None,
    typer.Option("--dtype", metavar="NAME", help="Type of the weights; default: as in training."),
]
LoadIn4Bit = Annotated[
    bool | None,
    typer.Option("--load_in_4bit/--no_load_in_4bit", help="Hold the weights in 4 bits; default: as in training."),
]
LoadIn8Bit = Annotated[
    bool | None,
    typer.Option("--load_in_8bit/--no_load_in_8bit", help="Hold the weights in 8 bits; default: as in training."),
]
ChatTemplate = Annotated[
    str | None,
    typer.Option("--chat_template", metavar="TEXT|FILE|NAME", help="In place of the template of training."),
]
Proxy = Annotated[
    str | None,
    typer.Option("--proxy", metavar="{tuned: A, untuned: B, alpha: 1.0}", help="Sample with proxy-tuning by a pair."),
]


def given_keys(**keys: Any) -> dict[str, Any]:
    """Return the keys of a recipe that a command line sets."""
    return {key: value for key, value in keys.items() if value is not None}


def proxy_entry(text: str | None) -> Any:
    """Return the `ProxyEntry` that a command line spells as YAML.

    Raises: RecipeError if it is none.
    """
    if text is None:
        return None
    import pydantic
    import yaml

    from alignment.config.faults import from_pydantic
    from alignment.config.schema import ProxyEntry
    from alignment.errors import RecipeError

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise RecipeError([f"--proxy {text}: write {{tuned: A, untuned: B}}, and alpha if it is not 1.0"])
    try:
        return ProxyEntry(**value)
    except pydantic.ValidationError as error:
        faults = from_pydantic(error, ProxyEntry, value)
        raise RecipeError([f"--proxy: {'.'.join(map(str, where))}: {fault}" for where, fault in faults]) from None


def reward_models(given: str) -> list[str]:
    """Return the reward models that a command line names: a folder, a Hub id, or several with commas between."""
    if Path(given).is_dir() or "," not in given:
        return [given]
    return [part.strip() for part in given.split(",")]


def entry_keys(columns: str | None, ignore_columns: str | None, layout: str | None) -> dict[str, Any]:
    """Return the keys of a recipe's data set entry that the options for files without a recipe set.

    Raises: RecipeError if one does not have the form in its help.
    """
    from alignment.errors import RecipeError

    pairs = [pair.partition("=") for pair in columns.split(",")] if columns else []
    if not all(key.strip() and column.strip() for key, _, column in pairs):
        raise RecipeError([f"--columns {columns}: write KEY=COLUMN, as prompt=question,chosen=good"])
    if len({key.strip() for key, _, _ in pairs}) < len(pairs):
        raise RecipeError([f"--columns {columns}: one key is named twice; a key is read from one column"])
    ignored = [key.strip() for key in ignore_columns.split(",")] if ignore_columns else []
    if not all(ignored):
        raise RecipeError([f"--ignore_columns {ignore_columns}: write KEY, or KEY,KEY"])
    renamed = {key.strip(): column.strip() for key, _, column in pairs}
    return {"columns": renamed or None, "ignore_columns": ignored, "format": layout}


def verb(name: str | None = None, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a verb, by its own name or another; `options` are typer's. It ends as recipe scripts do."""

    def register(work: Callable[..., None]) -> Callable[..., None]:
        @app.command(name, **options)
        @functools.wraps(work)
        def start(*given: Any, **named: Any) -> None:
            from alignment.cli.arguments import expanded_arguments, require_arguments
            from alignment.run.script import script

            def checked() -> None:
                words = expanded_arguments(named)
                require_arguments(words)
                work(*given, **words)

            script(checked)

        return start

    return register
