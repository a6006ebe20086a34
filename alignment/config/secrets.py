"""API keys, which a recipe must not contain: it is written to the run's folder. Keys belong in the environment."""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from alignment import secrecy
from alignment.config.yaml_text import Location
from alignment.errors import RecipeError

ENVIRONMENT = "A recipe is written to disk; put the key into an environment variable"
PLACES = {
    "hub_token": "HF_TOKEN, which the Hub's own client reads",
    "api_key": "a variable of your own, and name it in api_key_env",
}
Variables = dict[str, str]  # of the environment, those that hold keys: names and values
# Keys whose values are names that others gave, as a file of Google Drive has: `1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74`.
NAMED_BY_OTHERS = ("path", "paths", "dir", "file", "files", "folder", "revision", "template", "principles", "prompt")
HEXADECIMAL = re.compile(r"[0-9a-f]{32,128}|[0-9A-F]{32,128}")
NOT_SHOWN = "It is not shown here."


def refuse_keys_in_words(words: Iterable[str]) -> None:
    """Refuse a command line with an API key: job files, manifests and the list of processes contain command lines.

    Raises: RecipeError that shows none.
    """
    faults: list[str] = []
    known = dict(secrecy.environment_keys())
    flag = ""
    for word in words:
        is_flag = word.startswith("--") and len(word) > 2
        name, equals, value = word.partition("=") if is_flag else (flag, "", word)
        if is_flag and secrecy.key_in(name):
            faults.append(f"a flag {_looks_like(secrecy.key_in(name))}")
        elif value and (fault := _fault_of(name.rpartition(".")[2].removeprefix("--"), value, known)):
            faults.append(f"{name or 'the command line'}: {fault}")
        flag = name if is_flag and not equals else ""
    if faults:
        raise RecipeError(faults)


def keys_in(
    value: Any, at: "Location" = (), name: str = "", known: "Variables | None" = None
) -> Iterator[tuple["Location", str]]:
    """Find API keys in a value; yield the location and the fault of each.

    Args:
        at: location of the value. name: the key of the mapping that holds it; entries of a list have the
            list's. known: the environment's keys; None: they are looked up.
    """
    known = dict(secrecy.environment_keys()) if known is None else known
    if isinstance(value, dict):
        for key, inner in value.items():
            if secrecy.key_in(str(key)):
                yield at, f"the name of a key {_looks_like(secrecy.key_in(str(key)))}"
            else:
                yield from keys_in(inner, (*at, str(key)), str(key).rpartition(".")[2], known)
    elif isinstance(value, list):
        words = _after_flags(value)
        for index, inner in enumerate(value):
            yield from keys_in(inner, (*at, index), words.get(index, name), known)
    elif isinstance(value, str | int) and not isinstance(value, bool):
        fault = _fault_of(name, value, known)
        if fault:
            yield at, fault


def _after_flags(words: list[Any]) -> dict[int, str]:
    """The flags before the words of a command, by the words' places: `[module, --api_key, x]`."""
    flags = {}
    for index, (flag, word) in enumerate(pairwise(words), 1):
        if isinstance(flag, str) and flag.startswith("--") and "=" not in flag and not str(word).startswith("--"):
            flags[index] = flag.removeprefix("--").rpartition(".")[2]
    return flags


def _fault_of(name: str, value: str | int, known: Variables) -> str | None:
    text = str(value)
    if name.endswith("_env"):
        if secrecy.is_variable(text) and text not in known.values():
            return None
        return (
            "must name an environment variable; what it holds does not look like a name and is not shown here, in case "
            "it is a key. Put the key into a variable, and write the variable's name"
        )
    if text and secrecy.names_a_key(name):
        return f"holds a key, token or password. {_remedy(name)}. {NOT_SHOWN}"
    if isinstance(value, int):
        return None
    flag, equals, value = text.partition("=")
    if flag.startswith("--") and equals and secrecy.names_a_key(flag):
        return f"gives {flag} a key. {ENVIRONMENT}. {NOT_SHOWN}"
    if (kind := secrecy.key_in(text)) is not None:
        return _looks_like(kind)
    if secrecy.may_name_a_key(name) and secrecy.is_random(text):
        return _looks_like("a key")
    if _is_without_form(name, text):
        return _looks_like("a key")
    return _fault_of_address(name, text) or _fault_of_environment(text, known)


def _is_without_form(name: str, text: str) -> bool:
    """Whether a text is generated as keys are; a run may be named after a hash."""
    if name.endswith(NAMED_BY_OTHERS):
        return False
    return secrecy.is_generated(text) or (not name.endswith("name") and HEXADECIMAL.fullmatch(text) is not None)


def _fault_of_address(name: str, text: str) -> str | None:
    is_url = (
        name.endswith(("url", "endpoint")) and "@" in text.partition("://")[2 if "://" in text else 0].split("/")[0]
    )
    if secrecy.holds_user(text) or is_url:
        return f"holds a user name or password. {ENVIRONMENT}, and name it in api_key_env. {NOT_SHOWN}"
    parameter = secrecy.key_in_query(text)
    if parameter is not None:
        return f"holds a key as {parameter} behind the address. {ENVIRONMENT}, and name it in api_key_env. {NOT_SHOWN}"
    return None


def _fault_of_environment(text: str, known: Variables) -> str | None:
    variable = next((name for name, key in known.items() if key in text), None)
    return (
        f"holds what the environment variable {variable} holds. {ENVIRONMENT} alone. {NOT_SHOWN}" if variable else None
    )


def _looks_like(kind: str | None) -> str:
    return f"looks like {kind}. {ENVIRONMENT}, and name it in api_key_env. {NOT_SHOWN}"


def _remedy(name: str) -> str:
    place = PLACES.get(name.lower().replace("-", "_"))
    return f"A recipe is written to disk; put it into {place}" if place else ENVIRONMENT
