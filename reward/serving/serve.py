"""Serves a reward model until Ctrl-C."""

import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alignment.ops.ensemble import Aggregate
from alignment.run.signals import Terminated
from alignment.serving.address import address_of, listen
from alignment.serving.extra import require_extra
from alignment.serving.greeting import greeting
from alignment.serving.token import token_of

ROUNDS_AT_ONCE = 4  # of the model, taken from the queue together, so that answers of similar length share a batch
LONGEST_QUEUE = 64  # in such groups
GRACE_SECONDS = 30  # for requests in flight, after Ctrl-C
CHARACTERS_PER_TOKEN = 32  # of the model's context; text has about 4
LEAST_CHARACTERS = 2**17
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of `alignment serve-reward`."""

    models: Sequence[str]
    host: str = "127.0.0.1"
    port: int = 8766
    api_key_env: str = "ALIGNMENT_REWARD_KEY"
    batch_size: int = 64
    aggregate: Aggregate = "mean"
    trust_remote_code: bool = False


def serve(settings: Settings, tell: Tell) -> None:
    """Load the model and serve until interrupted; the address is bound before the model is loaded.

    Raises: AlignmentError if the extra is not installed, the address cannot be had, the variable holds no token, or
        the model cannot be loaded.
    """
    with contextlib.suppress(KeyboardInterrupt, Terminated):
        _serve(settings, tell)
    tell("stopped")


def _serve(settings: Settings, tell: Tell) -> None:
    """Load and serve; uvicorn shuts down on a signal, then raises it again."""
    require_extra("serve-reward")
    from alignment.serving.batching import Batcher
    from alignment.serving.server import server
    from reward.models.ensemble import Ensemble
    from reward.serving.app import build_app
    from reward.serving.requests import Limits

    token, is_new = token_of(settings.api_key_env)
    with contextlib.closing(listen(settings.host, settings.port)) as listener:
        model = Ensemble.load(
            settings.models,
            batch_size=settings.batch_size,
            aggregate=settings.aggregate,
            trust_remote_code=settings.trust_remote_code,
        )
        at_once = ROUNDS_AT_ONCE * settings.batch_size
        batcher = Batcher(model, batch_answers=at_once, most_waiting=LONGEST_QUEUE * at_once)
        limits = Limits(characters=characters_read(model.context))

        def started() -> None:
            listener.listen()  # before the address is printed, so that early connections wait
            for line in _greeting(settings, listener, token if is_new else None):
                tell(line)

        app = build_app(batcher, token, limits=limits, started=started)
        server(app, grace_seconds=GRACE_SECONDS).run(sockets=[listener])


def characters_read(context: int | None) -> int:
    """Return the maximum number of characters of an answer with its prompt; longer ones cannot fit the context."""
    return max(LEAST_CHARACTERS, CHARACTERS_PER_TOKEN * (context or 0))


def _greeting(settings: Settings, listener: socket.socket, token: str | None) -> list[str]:
    url, variable = f"{address_of(listener)}/score", settings.api_key_env
    use = f"in ppo.yaml, under scorers: {{kind: http, url: {url}, api_key_env: {variable}}}"
    return greeting(
        f"{', '.join(settings.models)}: scores at {url}", use, host=settings.host, api_key_env=variable, token=token
    )
