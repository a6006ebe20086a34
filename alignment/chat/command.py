"""The command `alignment chat`."""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.chat.answering import Answering
from alignment.chat.preferences import Preferences
from alignment.chat.screen import Screen
from alignment.chat.session import Session
from alignment.chat.settings import keys_of
from alignment.config.schema import ProxyEntry
from alignment.errors import AlignmentError, DataError, ModelError, named_inputs
from alignment.policy.policies import Policy
from alignment.run.script import INTERRUPTED

BLOCK = '"""'  # begins and ends a message of several lines


def chat(
    runs: Sequence[str],
    *,
    model: Mapping[str, Any],
    sampling: Mapping[str, Any],
    system: str | None,
    preferences: Path,
    proxy: ProxyEntry | None = None,
    text: bool | None = None,
) -> int:
    """Talk with policies until the input ends.

    Args:
        model: keys of `ModelKeys` in place of what the runs recorded. sampling: keys of `ChatKeys`.
        preferences: the file that `/prefer` appends to. text: continue text without a chat template; None: as the runs
            were trained.

    Returns: the exit code: 1 if the input is no terminal and a line of it could not be followed; 130 after Ctrl-C.
    Raises: AlignmentError, with the exit code 2 if a run is no policy.
    """
    keys = keys_of(sampling, mark="--")
    screen = Screen()
    with named_inputs():
        policies = [Policy.find(run, model, proxy=proxy) for run in runs]
        chats = _chats(policies, text)
        with named_inputs(AlignmentError):
            kept = Preferences(preferences)
        session = Session(Answering(policies), keys, kept, screen, chats=chats)
    with named_inputs(DataError):
        if system is not None:
            session.set_system(system)
    for policy in policies:
        screen.note(_described(policy, chats=chats))
    if sys.stdin.isatty():
        screen.note(f"{', '.join(f'{key} {value}' for key, value in keys.model_dump().items())}; /help lists commands")
    try:
        for line in _messages(screen):
            if not session.take(line):
                break
    except KeyboardInterrupt:  # the second one within an answer
        screen.note("ended by Ctrl-C")
        return INTERRUPTED
    return 0 if sys.stdin.isatty() else min(session.faults, 1)


def _chats(policies: Sequence[Policy], text: bool | None) -> bool:
    """Whether lines are messages.

    Raises: ModelError if they are to be, and a policy has no chat template.
    """
    without = [policy.path for policy in policies if not policy.chats]
    if text is False and without:
        raise ModelError(f"{without[0]} has no chat template; name one with --chat_template, or leave --chat out.")
    if text is not None:
        return not text
    return not without and not any(policy.trained_on_text for policy in policies)


def _described(policy: Policy, *, chats: bool) -> str:
    base = f", adapter on {policy.source.base}" if policy.source.adapter else ""
    stops = ", ".join(map(repr, policy.tokenizer.convert_ids_to_tokens(policy.template.stop_token_ids)))
    why = "no chat template: " if not policy.chats else "trained on text: " if policy.trained_on_text else ""
    how = "chat template" if chats else f"{why}continues text"
    return f"{policy.path}{base}; {how}; stops at {stops}"


def _messages(screen: Screen) -> Iterator[str]:
    """Yield messages: lines, or the lines between two lines of triple quotes."""
    block: list[str] | None = None
    for line in _lines(screen):
        if line.strip() == BLOCK:
            if block is None:
                block = []
                continue
            line, block = "\n".join(block), None
        elif block is not None:
            block.append(line)
            continue
        yield line
    if block:
        yield "\n".join(block)


def _asked() -> str:
    """Read a line from the terminal; the mark before it does not go into a file that the answers go into.

    Raises: EOFError at the end.
    """
    if sys.stdout.isatty():
        return input("> ")
    sys.stderr.write("> ")
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


def _lines(screen: Screen) -> Iterator[str]:
    """Yield the lines of standard input until it ends."""
    if not sys.stdin.isatty():
        for raw in sys.stdin.buffer:
            yield raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # gives `input` a history and keys that edit the line

    while True:
        try:
            yield _asked()
        except KeyboardInterrupt:
            screen.note("\n(Ctrl-D or /quit ends the chat)")
        except EOFError:
            screen.note("")
            return
