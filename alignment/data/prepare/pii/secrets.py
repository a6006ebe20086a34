"""Passwords and keys, by the plugins of detect-secrets, none of which is asked to verify a key over the network."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.filters import heuristic
from detect_secrets.plugins.base import BasePlugin, RegexBasedDetector
from detect_secrets.plugins.high_entropy_strings import HighEntropyStringsPlugin
from detect_secrets.plugins.keyword import QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP

from alignment.data.prepare.pii.recogniser import VALID, Recogniser

NOT_SECRETS = ("IPPublicDetector", "PrivateKeyDetector")  # an address; and only the first line of a key
SHORTEST = 6  # characters
_KEY_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
_PLAINLY = re.compile(  # the keyword detector of detect-secrets needs quotes around the secret
    r"(?:passw(?:or)?d|pwd|api[ _-]?key|secret[ _-]?key|access[ _-]?token|密码|口令)\s*(?:is|=|:|：|是|为)+\s*"
    r"(?=[^\s'\"`<>{}]*\d)(?=[^\s'\"`<>{}]*[A-Za-z])([^\s'\"`,;<>(){}。，；]{6,})(?![(\w])",
    re.IGNORECASE,
)
_YOURS = re.compile(r"(?i:your|my|the|some)[_ -]|(?i:change_?me|example)")
_TOKEN = re.compile(r"[\w+/=.-]*")


class Secrets(Recogniser):
    """Keys of known services, private keys, quoted strings of high entropy, and what is called a password or a key."""

    KIND = "SECRET_VALUE"

    def __init__(self) -> None:
        kinds: Iterable[Any] = get_mapping_from_secret_type_to_class().values()
        plugins: list[BasePlugin] = [kind() for kind in kinds if kind.__name__ not in NOT_SECRETS]
        self._regexes = [
            regex for plugin in plugins if isinstance(plugin, RegexBasedDetector) for regex in plugin.denylist
        ]
        self._entropies = [plugin for plugin in plugins if isinstance(plugin, HighEntropyStringsPlugin)]
        super().__init__()

    def found(self, text: str) -> Iterator[tuple[int, int, float]]:
        """Yield every secret."""
        for match in _KEY_BLOCK.finditer(text):
            yield match.start(), match.end(), VALID
        for start, end in self._in_text(text):
            if end - start >= SHORTEST and not _is_placeholder(text[start:end]):
                yield start, end, VALID

    def _in_text(self, text: str) -> Iterator[tuple[int, int]]:
        for regex in self._regexes:
            for match in regex.finditer(text):
                yield _whole(match, text)
        for plugin in self._entropies:
            for match in plugin.regex.finditer(text):
                if plugin.calculate_shannon_entropy(match[2]) > plugin.entropy_limit:
                    yield match.span(2)
        for regex, group in QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP.items():
            for match in regex.finditer(text):
                yield match.span(group)
        for match in _PLAINLY.finditer(text):
            yield match.span(1)


def _whole(match: re.Match[str], text: str) -> tuple[int, int]:
    """Return the span of a secret to its last character.

    A group of the expression is the secret behind a keyword, or only the beginning of a key (`ghp`). Some expressions
    end before the key does.
    """
    secret = next((at for at in range(1, match.re.groups + 1) if len(match[at] or "") >= SHORTEST), 0)
    start, end = match.span(secret)
    start += len(text[start:end]) - len(text[start:end].lstrip(" \t\r\n=:\"'"))
    if text[start:end][-1:] in " \t\r\n\"'":
        return start, start + len(text[start:end].rstrip(" \t\r\n\"'"))
    end = _TOKEN.match(text, end).end()  # type: ignore[union-attr] # it matches the empty text
    return start, start + len(text[start:end].rstrip("."))


def _is_placeholder(secret: str) -> bool:
    """Whether a text only stands for a secret: `<password>`, `${KEY}`, `********`, `abcdef`, `your_password`."""
    return bool(
        _YOURS.match(secret)
        or heuristic.is_templated_secret(secret)
        or heuristic.is_prefixed_with_dollar_sign(secret)
        or heuristic.is_not_alphanumeric_string(secret)
        or heuristic.is_sequential_string(secret)
    )
