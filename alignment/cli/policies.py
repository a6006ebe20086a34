"""What a trained policy is used for."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from alignment.cli.base import (
    RESULT_PANEL,
    ChatTemplate,
    Dtype,
    LoadIn4Bit,
    LoadIn8Bit,
    Proxy,
    TrustRemoteCode,
    given_keys,
    proxy_entry,
    verb,
)


@verb(rich_help_panel=RESULT_PANEL)
def chat(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs, model or adapter folders, or Hub ids; compared if several."),
    ],
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="The system message.")] = None,
    preferences: Annotated[
        Path, typer.Option("--preferences", metavar="FILE", help="Where `/prefer` appends rows.")
    ] = Path("preferences.jsonl"),
    max_new_tokens: Annotated[
        int | None, typer.Option("--max_new_tokens", help="Most tokens of an answer; default: 512.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="0: the likeliest token, always; default: 1.0.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option("--top_p", help="Sample from the likeliest tokens of this sum; default: 1.0.")
    ] = None,
    top_k: Annotated[int | None, typer.Option("--top_k", help="Sample from so many tokens; default: 0, all.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the answers; default: 0.")] = None,
    text: Annotated[
        bool | None,
        typer.Option(
            "--text/--chat", help="Continue each line as text, or apply the chat template; default: as trained."
        ),
    ] = None,
    proxy: Proxy = None,
    dtype: Dtype = None,
    load_in_4bit: LoadIn4Bit = None,
    load_in_8bit: LoadIn8Bit = None,
    chat_template: ChatTemplate = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Talk with a trained policy, or with several side by side; `/prefer` records which answer is better."""
    from alignment.chat.command import chat as talk

    code = talk(
        runs,
        model=given_keys(
            dtype=dtype,
            load_in_4bit=load_in_4bit,
            load_in_8bit=load_in_8bit,
            chat_template=chat_template,
            trust_remote_code=trust_remote_code or None,
        ),
        sampling=given_keys(
            max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed
        ),
        system=system,
        preferences=preferences,
        proxy=proxy_entry(proxy),
        text=text,
    )
    if code:
        sys.exit(code)


@verb(rich_help_panel=RESULT_PANEL)
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run, a model's or an adapter's folder, or a pipeline.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    adapter: Annotated[
        bool,
        typer.Option("--adapter", help="Write the adapter alone, as vLLM takes it; default: merged into its base."),
    ] = False,
    license_id: Annotated[
        str | None,
        typer.Option("--license", metavar="ID", help="In the card; default: the base's, if its card names one."),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option("--evaluation", metavar="RUN", help="A run of `evaluate`; default: those beside RUN."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0.0, help="Largest logit difference accepted; default: what the weights' type can hold."),
    ] = None,
    push: Annotated[
        str | None, typer.Option("--push", metavar="OWNER/NAME", help="Also upload the folder to the Hub; private.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository of --push public.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write a trained model as Transformers or vLLM take it, with a model card of lineage, licences and evaluation."""
    from alignment.export.command import Wanted
    from alignment.export.command import export as write

    wanted = Wanted(
        run=run,
        out=out,
        as_adapter=adapter,
        licence=license_id,
        evaluation=evaluation,
        tolerance=tolerance,
        push=push,
        public=public,
        trust_remote_code=trust_remote_code,
    )
    write(wanted, typer.echo)


@verb(rich_help_panel=RESULT_PANEL)
def serve(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs, model or adapter folders, or Hub ids; NAME=RUN renames one."),
    ],
    host: Annotated[str, typer.Option(help="Whom to answer; the default is this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    api_key_env: Annotated[
        str,
        typer.Option("--api_key_env", metavar="NAME", help="The variable with the bearer token; unset: a new one."),
    ] = "ALIGNMENT_SERVE_KEY",
    adapters: Annotated[
        list[Path] | None,
        typer.Option("--adapters", metavar="DIR", help="Requests may load adapters below this folder; repeatable."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch_size", min=1, max=4096, help="Answers that are written together.")
    ] = 64,
    most_waiting: Annotated[
        int, typer.Option("--most_waiting", min=1, help="Answers that may wait; more are refused with 429.")
    ] = 1024,
    cache_tokens: Annotated[
        int | None,
        typer.Option("--cache_tokens", min=1, help="Tokens whose keys and values are held; default: by free memory."),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option("--max_length", min=2, help="Most tokens of prompt and answer; default: the model's context."),
    ] = None,
    engine: Annotated[
        Literal["own", "vllm"], typer.Option("--engine", help="vllm: start vLLM, which needs a GPU, with these runs.")
    ] = "own",
    proxy: Proxy = None,
    dtype: Dtype = None,
    load_in_4bit: LoadIn4Bit = None,
    load_in_8bit: LoadIn8Bit = None,
    chat_template: ChatTemplate = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Serve runs behind OpenAI's protocol; adapters of one base share it, each under its own model name."""
    from alignment.serve.serve import Settings
    from alignment.serve.serve import serve as start

    settings = Settings(
        runs,
        host=host,
        port=port,
        api_key_env=api_key_env,
        adapters=adapters or (),
        batch_size=batch_size,
        most_waiting=most_waiting,
        cache_tokens=cache_tokens,
        max_length=max_length,
        proxy=proxy_entry(proxy),
        keys=given_keys(
            dtype=dtype,
            load_in_4bit=load_in_4bit,
            load_in_8bit=load_in_8bit,
            chat_template=chat_template,
            trust_remote_code=trust_remote_code or None,
        ),
    )
    if engine == "vllm":
        from alignment.serve.vllm import serve as start_vllm

        start_vllm(settings)
    else:
        start(settings, lambda line: typer.echo(line))
