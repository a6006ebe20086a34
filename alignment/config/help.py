"""The text of `alignment STAGE --help`: every key with its type, default and meaning, in groups."""

import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from alignment.config.faults import annotation_text, parts_in, shown
from alignment.config.library import OUR_DEFAULTS, Kind, trainer_keys, trainer_texts
from alignment.config.reference import GROUPS, keys_of
from alignment.config.renamed import DECIDED
from alignment.config.schema import Recipe
from alignment.config.schema.kinds import Entry

WIDTH = 110  # columns
BY_MACHINE = {  # defaults of the trainer's keys that `alignment.train.arguments` computes
    "activation_checkpointing": "true on a GPU",
    "bf16": "true on a GPU that supports it",
    "dataloader_pin_memory": "true on a GPU",
    "disable_tqdm": "true without a terminal",
    "gradient_checkpointing": "true on a GPU",
    "use_cpu": "true without a GPU",
}


def describe(cls: type[Recipe], word: str = "") -> str:
    """Return the keys of a stage, for `--help`.

    Args:
        word: keep only keys whose name or meaning contains it. If it is a key that takes mappings, or a kind of
            these, their keys follow.
    """
    sections = [(title, [entry for entry in entries if word.lower() in entry.lower()]) for title, entries in _all(cls)]
    lines = [" ".join((cls.__doc__ or "").split()), "", "  --config FILE [--key value ...]", "  --help [WORD]"]
    for key, info in cls.model_fields.items():
        sections += _inner(key, info.annotation, word)
    for title, entries in sections:
        if entries:
            lines += ["", f"{title}:", *entries]
    if not any(entries for _, entries in sections):
        lines += ["", f"No key contains {word!r}."]
    return "\n".join(lines) + "\n"


def _all(cls: type[Recipe]) -> Iterator[tuple[str, list[str]]]:
    """Yield the groups of keys, each as a title and entries; the stage's own keys come first."""
    named: set[str] = set()
    for part in cls.__mro__:
        if not issubclass(part, Recipe) and part not in GROUPS:
            continue
        keys = [key for key in keys_of(part) if key not in named]
        named |= set(keys)
        title = GROUPS[part][0] if part in GROUPS else cls.STAGE.title
        yield title, [_own(key, cls.model_fields[key]) for key in keys]
    if cls.TRAINER_CONFIG:
        hidden = named | DECIDED.keys()
        texts = trainer_texts(cls.TRAINER_CONFIG)
        kinds = trainer_keys(cls.TRAINER_CONFIG).items()
        entries = [_library(name, kind, *texts.get(name, ("", ""))) for name, kind in kinds if name not in hidden]
        yield f"Keys of {cls.TRAINER_CONFIG.replace(':', '.')}", entries


def _inner(key: str, annotation: Any, word: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the keys of the mappings that a key takes, if `word` is the key; if it is a kind, those of this kind."""
    for part in parts_in(annotation):
        kinds = part.kind_names() if issubclass(part, Entry) else ()
        if word != key and word not in kinds:
            continue
        title = f"{key}, kind: {', '.join(kinds)}" if kinds else key
        what = part.model_fields["kind"].description if kinds else ""
        heading = [textwrap.fill(what, WIDTH, initial_indent="  ", subsequent_indent="  ")] if what else []
        yield title, [*heading, *(_own(name, info) for name, info in part.model_fields.items() if name != "kind")]


def _own(name: str, info: FieldInfo) -> str:
    default = None if info.is_required() else shown(info.get_default(call_default_factory=True))
    return _entry(name, annotation_text(info.annotation), default, " ".join((info.description or "").split()))


def _library(name: str, kind: Kind, default: str, meaning: str) -> str:
    given: Any = OUR_DEFAULTS.get(name)
    text = BY_MACHINE.get(name) or (shown(given) if name in OUR_DEFAULTS else _as_yaml(default))
    return _entry(name, str(kind), text, meaning)


def _as_yaml(default: str) -> str:
    return {"None": "null", "True": "true", "False": "false"}.get(default, default) or "of the library"


def _entry(name: str, kind: str, default: str | None, meaning: str) -> str:
    head = f"  {name}: {kind}; {'required' if default is None else f'default {default}'}"
    return "\n".join([head, *textwrap.wrap(meaning, WIDTH, initial_indent="      ", subsequent_indent="      ")])
