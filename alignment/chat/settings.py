"""How a chat samples: the keys of recipes, with a chat's defaults."""

from collections.abc import Mapping
from typing import Any

import pydantic
from pydantic import Field

from alignment.config.faults import did_you_mean, from_pydantic
from alignment.config.schema.keys import SamplingKeys
from alignment.errors import RecipeError


class ChatKeys(SamplingKeys):
    """Sampling of a chat's answers."""

    max_new_tokens: int = Field(default=512, gt=0, le=10**7)
    """Maximum number of tokens of an answer; the context may leave less."""
    temperature: float = Field(default=1.0, ge=0, le=1000)
    """Temperature of sampling. 0: always the likeliest token."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Seed of the answers."""


def keys_of(given: Mapping[str, Any], before: ChatKeys | None = None, *, mark: str = "") -> ChatKeys:
    """Return sampling keys: those given, else those before, else the defaults.

    Args:
        mark: written before a key in messages, as `--`.

    Raises: RecipeError if a key does not exist or has an impossible value.
    """
    known = ChatKeys.model_fields
    odd = [f"{mark}{key}: no such key{did_you_mean(key, known)} ({', '.join(known)})" for key in given.keys() - known]
    if odd:
        raise RecipeError(odd)
    values = {**(before.model_dump() if before else {}), **given}
    try:
        return ChatKeys(**values)
    except pydantic.ValidationError as error:
        faults = from_pydantic(error, ChatKeys, values)
        raise RecipeError([f"{mark}{'.'.join(map(str, where))}: {fault}" for where, fault in faults]) from None


def value_of(text: str) -> int | float | str:
    """Return a number that a text spells, else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
