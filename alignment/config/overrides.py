"""`--key value` on the command line, laid over a recipe's file."""

import re
from typing import Any

from alignment import strict_json
from alignment.config.documents import Document, Location, parse_value
from alignment.config.expanded import NAMED_BY_USERS, expand
from alignment.config.secrets import keys_in, refuse_keys_in_words
from alignment.config.yaml_text import DEEPEST, dotted, spoken
from alignment.errors import RecipeError


def split_argv(argv: list[str]) -> tuple[str, list[tuple[str, str | None]]]:
    """Separate `--config FILE` from the overrides.

    Returns: the file, and (key, text) for each override, text None if the flag has no value.
    Raises: RecipeError for a missing `--config`, for words that are no flag, and for keys and passwords.
    """
    refuse_keys_in_words(argv)
    config: str | None = None
    overrides: list[tuple[str, str | None]] = []
    faults: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            faults.append(f"{strict_json.shown(word)}: unexpected; an override is written `--key value`")
            continue
        key, equals, text = word[2:].partition("=")
        value = text if equals else words.pop(0) if words and not words[0].startswith("--") else None
        if key != "config":
            # A flag without a value may be written with hyphens: --dry-run.
            overrides.append((key if value is not None else key.replace("-", "_"), value))
        elif value is None:
            faults.append("--config: needs a file")
        else:
            config = value
    if config is None and not faults:
        faults.append("no recipe given; name one with `--config FILE`")
    if faults:
        raise RecipeError(faults)
    assert config is not None
    return config, overrides


def apply(document: Document, overrides: list[tuple[str, str | None]], texts: set[str], flags: set[str]) -> list[str]:
    """Lay overrides over a document in place, each read as YAML.

    Args:
        document: changed. overrides: from `split_argv`.
        texts: keys that take only text, for which `[EOS]` is not a list. flags: keys that need no value.

    Returns: the faults found. Raises: RecipeError if a value holds a key or password.
    """
    faults: list[str] = []
    for key, text in overrides:
        if not all(map(strict_json.is_whole, (key, text or ""))):
            faults.append(f"--{strict_json.shown(key)[1:-1]}: holds bytes that are not UTF-8")
            continue
        steps = key.split(".")
        if len(steps) > DEEPEST or not all(steps):
            faults.append(
                f"--{strict_json.shown(key)[1:-1]}: is not a key; write judge.model or datasets.0.path, for example"
            )
            continue
        location: Location = tuple(int(step) if re.fullmatch(r"[0-9]{1,9}", step) else step for step in steps)
        if text is None and key not in flags:
            faults.append(f"--{key}: needs a value")
            continue
        try:
            value = True if text is None else _text(text) if key in texts else parse_value(text)
        except RecipeError as error:
            faults.append(f"--{key}: {error}")
            continue
        value, unexpanded = _expanded(value, location)
        keys = [f"--{dotted(place)}: {message}" for place, message in keys_in(value, location, str(location[-1]))]
        if keys:
            raise RecipeError(keys)  # alone: other faults would show values
        fault = unexpanded or _set(document.values, location, value)
        if fault:
            faults.append(f"--{key}: {fault}")
            continue
        for known in [at for at in document.lines if at[: len(location)] == location]:
            del document.lines[known]
        document.flags.append(location)
    return faults


def _expanded(value: Any, location: Location) -> tuple[Any, str | None]:
    """Expand the paths in a value; returns it, and what is wrong, if anything."""
    if not NAMED_BY_USERS.isdisjoint(location):
        return value, None
    holder, name = [value], next((str(step) for step in reversed(location) if isinstance(step, str)), "")
    fault = next((message for _, message in expand(holder, name=name)), None)
    return holder[0], fault


def _text(text: str) -> Any:
    """Read the value of a key that takes only text: quotes and null as in YAML, everything else unchanged."""
    try:
        value = parse_value(text)
    except RecipeError:
        return text
    return value if value is None or isinstance(value, str) else text


def _set(values: dict[str, Any], location: Location, value: Any) -> str | None:
    """Set one value deep inside; returns what is wrong, if anything."""
    place: Any = values
    for depth, step in enumerate(location):
        here = spoken(location[:depth])
        last = depth == len(location) - 1
        if isinstance(place, list):
            if not isinstance(step, int) or step >= len(place):
                return f"{here} has {len(place)} entries, counted from 0; there is no {step}"
        elif not isinstance(place, dict):
            return f"{here} is a single value; there is no {step} in it"
        else:
            step = str(step)
        if last:
            place[step] = value
        else:
            if isinstance(place, dict) and place.get(str(step)) is None:
                place[step] = {}
            place = place[step]
    return None
