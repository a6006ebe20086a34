"""The tables in docs/import.md: each peer's keys, what becomes of them, and why."""

import sys
from itertools import groupby

from alignment.importing.conversion import Peer
from alignment.importing.detecting import PEERS
from alignment.importing.keys import ABSENT, Key


def markdown(peer: Peer) -> str:
    """Return the table of a peer; neighbours with one fate share a row."""
    lines = [f"| key of {peer.title} | here | meaning, or reason |", "|---|---|---|"]
    for (ours, note, _), keys in groupby(peer.table, _row):
        names = ", ".join(f"`{key.name}`" for key in keys)
        lines.append(f"| {names} | {ours} | {note} |".replace("|  |", "| |"))
    return "\n".join(lines)


def _row(key: Key) -> tuple[str, str, str]:
    """Return the cells of a key; one that is translated has a row of its own."""
    default = "" if key.default in (ABSENT, None) or key.fate != "translated" else f"default `{_text(key.default)}`"
    note = "; ".join(part for part in (key.note, default) if part)
    if key.fate == "translated" and key.ours:
        return f"`{key.ours}`", note, key.name
    return (key.fate if key.fate != "translated" else "by value"), note, ""


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.stdout.write("\n\n".join(markdown(peer) for peer in PEERS.values()) + "\n")
