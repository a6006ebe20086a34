"""Keys of earlier releases and other tools, and what they are called here."""

from collections.abc import Collection


def successor(key: str, known: Collection[str]) -> str | None:
    """Return what to say of a key that has another name now, or None."""
    return None
