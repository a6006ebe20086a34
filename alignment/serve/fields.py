"""Reads the keys of a request's body; a key that is left over is refused."""

from typing import Any

from alignment.data.fields import is_whole, kind_of
from alignment.serve.faults import ApiError
from alignment.strict_json import shown


class Fields:
    """The keys of a body, each of which is read once. null is the same as absent."""

    def __init__(self, body: Any) -> None:
        if not isinstance(body, dict):
            raise ApiError(f"the body is {kind_of(body)}; it must be an object.")
        if not is_whole(body):
            raise ApiError("the body holds half of a surrogate pair, which is no character.")
        self._left = {key: value for key, value in body.items() if value is not None}

    def take(self, key: str, kind: type | tuple[type, ...], words: str, default: Any = None) -> Any:
        """Return a value of a type.

        Args:
            words: names the type in the error.
        """
        if key not in self._left:
            return default
        value = self._left.pop(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ApiError(f"{key} is {shown(value)}; it must be {words}.", key, code="invalid_type")
        return value

    def text(self, key: str, default: str | None = None) -> Any:
        """Return a text."""
        return self.take(key, str, "text", default)

    def flag(self, key: str) -> bool:
        """Return true or false; absent is false."""
        return bool(self.take(key, bool, "true or false", False))

    def whole(self, key: str, default: int | None, least: int, most: int) -> Any:
        """Return an integer within bounds."""
        return self._bounded(key, self.take(key, int, "an integer", default), least, most)

    def number(self, key: str, default: float, least: float, most: float) -> float:
        """Return a number within bounds."""
        return float(self._bounded(key, self.take(key, (int, float), "a number", default), least, most))

    def _bounded(self, key: str, value: Any, least: float, most: float) -> Any:
        if value is not None and not least <= value <= most:  # neither is NaN
            raise ApiError(f"{key} is {shown(value)}; it must be from {least} to {most}.", key, code="invalid_value")
        return value

    def only(self, key: str, *allowed: Any, why: str) -> None:
        """Accept a key with these values alone, which change nothing."""
        value = self._left.pop(key, None)
        if value is not None and value not in allowed:
            raise ApiError(f"{key} {shown(value)} is not supported: {why}", key, code="unsupported_value")

    def ignore(self, *keys: str) -> None:
        """Accept keys that name the client and have no effect on an answer."""
        for key in keys:
            self._left.pop(key, None)

    def require_none_left(self) -> None:
        """Refuse the keys that were not read."""
        if self._left:
            key = sorted(self._left)[0]
            raise ApiError(f"{shown(key)} is not a key that this server reads.", key[:60], code="unknown_parameter")
