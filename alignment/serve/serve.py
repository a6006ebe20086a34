"""Serves runs until Ctrl-C."""

import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.config.schema import ProxyEntry
from alignment.errors import RecipeError, named_inputs
from alignment.run.signals import Terminated
from alignment.serve.names import named_runs
from alignment.serving.address import address_of, listen
from alignment.serving.extra import require_extra
from alignment.serving.greeting import greeting
from alignment.serving.token import token_of

GRACE_SECONDS = 30  # for requests in flight, after Ctrl-C
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of `alignment serve`."""

    runs: Sequence[str]  # each RUN or NAME=RUN
    host: str = "127.0.0.1"
    port: int = 8000
    api_key_env: str = "ALIGNMENT_SERVE_KEY"
    adapters: Sequence[Path] = ()  # folders below which adapters are loaded while the server runs
    batch_size: int = 64
    most_waiting: int = 1024
    cache_tokens: int | None = None
    max_length: int | None = None
    proxy: ProxyEntry | None = None
    keys: Mapping[str, Any] = field(default_factory=dict)  # of ModelKeys, in place of those of the runs


def serve(settings: Settings, tell: Tell) -> None:
    """Load the models and serve until interrupted; the address is bound before the models are loaded.

    Raises: AlignmentError if the extra is not installed, the address cannot be had, the variable holds no token, or
        a model cannot be loaded.
    """
    with contextlib.suppress(KeyboardInterrupt, Terminated):
        _serve(settings, tell)
    with contextlib.suppress(OSError):
        tell("stopped")


def _serve(settings: Settings, tell: Tell) -> None:
    """Load and serve; uvicorn shuts down on a signal, then raises it again."""
    require_extra("serve")
    from alignment.policy.policies import Policy
    from alignment.serve.adapters import Adapters
    from alignment.serve.app import Mailbox, build_app
    from alignment.serve.engine import Bounds
    from alignment.serve.faults import error_body
    from alignment.serve.models import Models
    from alignment.serving.server import server

    runs, folders = named_runs(settings.runs), allowed_folders(settings)
    token, is_new = token_of(settings.api_key_env)
    with contextlib.closing(listen(settings.host, settings.port)) as listener:
        mailbox = Mailbox()
        with named_inputs():
            policies = {name: Policy.find(run, settings.keys, proxy=settings.proxy) for name, run in runs.items()}
            models = Models(
                policies,
                bounds=Bounds(rows=settings.batch_size, waiting=settings.most_waiting),
                cache_tokens=settings.cache_tokens,
                length=settings.max_length,
                post=mailbox.post,
            )

        def started() -> None:
            listener.listen()  # before the address is printed, so that early connections wait
            for line in _greeting(settings, listener, list(runs), token if is_new else None):
                with contextlib.nullcontext() if is_new else contextlib.suppress(OSError):  # a full disk
                    tell(line)

        app = build_app(models, Adapters(models, folders, settings.keys), token, mailbox=mailbox, started=started)
        server(app, grace_seconds=GRACE_SECONDS, body=error_body).run(sockets=[listener])


def allowed_folders(settings: Settings) -> Sequence[Path]:
    """Return the folders of --adapters.

    Raises: RecipeError if one is not there, or options contradict each other.
    """
    faults = [f"--adapters {folder} is not a folder" for folder in settings.adapters if not folder.is_dir()]
    if settings.adapters and settings.keys.get("trust_remote_code"):
        faults.append(
            "--adapters and --trust_remote_code: an adapter that a request names must bring no code; drop one"
        )
    if settings.proxy is not None and len(settings.runs) != 1:
        faults.append(f"a proxy changes one model, and {len(settings.runs)} are named; serve it alone")
    if faults:
        raise RecipeError(faults)
    return settings.adapters


def _greeting(settings: Settings, listener: socket.socket, names: Sequence[str], token: str | None) -> list[str]:
    url, variable = f"{address_of(listener)}/v1", settings.api_key_env
    use = f'OpenAI(base_url="{url}", api_key=os.environ["{variable}"])'
    return greeting(f"{', '.join(names)}: answers at {url}", use, host=settings.host, api_key_env=variable, token=token)
