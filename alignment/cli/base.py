"""What all verbs of the command `alignment` hang on."""

import functools
from collections.abc import Callable
from typing import Annotated, Any

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

STAGE_PANEL = "Stages, each `--config FILE [--key value ...]`; `--help` lists the keys"
WHOLE_PANEL = "The whole way"
PEOPLE_PANEL = "People's labels"
RESULT_PANEL = "What came of it"

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


def verb(name: str | None = None, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a verb, by its own name or another; `options` are typer's. It ends as recipe scripts do."""

    def register(work: Callable[..., None]) -> Callable[..., None]:
        @app.command(name, **options)
        @functools.wraps(work)
        def start(*given: Any, **named: Any) -> None:
            from alignment.cli.words import require_words
            from alignment.run.script import script

            def checked() -> None:
                require_words(named)
                work(*given, **named)

            script(checked)

        return start

    return register
