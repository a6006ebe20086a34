"""The text and the bytes of single tokens, for log-probabilities."""

import re
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
ANCHOR = "a"  # behind which a token is decoded, since alone it may lose its leading space


class TokenTexts:
    """Texts of tokens of one tokenizer, each as it is behind other text."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._anchor = tokenizer(ANCHOR, add_special_tokens=False)["input_ids"]
        self._before = str(tokenizer.decode(self._anchor))
        self._bytes = _bytes_of_characters()
        self._known: dict[int, tuple[str, list[int]]] = {}

    def __call__(self, token: int) -> tuple[str, list[int]]:
        """Return a token's text and its bytes. The text of a part of a character names the bytes, as OpenAI does."""
        if token not in self._known:
            self._known[token] = self._read(token)
        return self._known[token]

    def within(self, token: int, part: str | None) -> tuple[str, list[int]]:
        """Return a token's text and its bytes where it stands.

        Args:
            part: its part of the text around it: "" of a token that the text leaves out, such as BOS. None: not known.
                A part of a character has its bytes all the same.
        """
        text, raw = self(token)
        if part is None or list(text.encode()) != raw:
            return text, raw
        return part, list(part.encode())

    def _read(self, token: int) -> tuple[str, list[int]]:
        after = str(self._tokenizer.decode([*self._anchor, token]))
        text = after[len(self._before) :] if after.startswith(self._before) else str(self._tokenizer.decode([token]))
        if "\N{REPLACEMENT CHARACTER}" not in text:
            return text, list(text.encode())
        written = self._tokenizer.convert_ids_to_tokens(token) or ""
        found = _BYTE.fullmatch(written)
        if found:
            raw = [int(found[1], 16)]
        elif all(character in self._bytes for character in written):
            raw = [self._bytes[character] for character in written]
        else:
            return text, list(text.encode())
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw), raw


def _bytes_of_characters() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for (GPT-2's table)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}
