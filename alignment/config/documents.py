"""YAML files read strictly, by the rules of YAML 1.2, with the line of every key.

PyYAML reads YAML 1.1, where `5e-5` is text, `no` is false, `010` is eight and the last of two equal keys wins; a recipe
must mean what it says.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from alignment.config.secrets import keys_in
from alignment.errors import RecipeError

Location = tuple[str | int, ...]  # ("datasets", 0, "path")

SCALARS = [  # https://yaml.org/spec/1.2.2/#103-core-schema, in order of trial
    ("null", r"null|Null|NULL|~|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
]


class StrictLoader(yaml.SafeLoader):
    """Resolves plain scalars by YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 as in the base


for _tag, _pattern, _first in SCALARS:
    StrictLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), ["" if c == "\0" else c for c in _first]
    )
StrictLoader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("^<<$"), ["<"])


@dataclass
class Document:
    """A file's values, and where each of them stands."""

    path: str
    values: dict[str, Any]
    lines: dict[Location, int] = field(default_factory=dict)
    flags: list[Location] = field(default_factory=list)  # values that the command line gave

    def fault(self, location: Location, message: str) -> str:
        """Return a line that names the place and the key: `x.yaml:12: judge.model: message`."""
        for length in range(len(location), 0, -1):
            prefix = location[:length]
            if prefix in self.flags:
                return f"--{dotted(location)}: {message}"
            if prefix in self.lines:
                return f"{self.path}:{self.lines[prefix]}: {spoken(location)}: {message}"
        for flag in self.flags:
            if flag[: len(location)] == location:
                return f"--{dotted(flag)}: {message}"
        return f"{self.path}: {spoken(location)}: {message}" if location else f"{self.path}: {message}"

    def order(self, location: Location) -> tuple[int, int]:
        """Sort key that puts faults in the file's order, then those of no line, then the command line's."""
        for length in range(len(location), 0, -1):
            prefix = location[:length]
            if prefix in self.flags:
                return (2, self.flags.index(prefix))
            if prefix in self.lines:
                return (0, self.lines[prefix])
        return (1, 0)


def spoken(location: Location) -> str:
    """Return `datasets[0].path` for ("datasets", 0, "path")."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return text.removeprefix(".")


def dotted(location: Location) -> str:
    """Return `datasets.0.path` for ("datasets", 0, "path"), as on the command line."""
    return ".".join(map(str, location))


def read_document(path: str) -> Document:
    """Read a YAML file whose top is a mapping.

    Raises: RecipeError, with line and column where there is one; where a key or password stands anywhere in it, too.
    """
    file = Path(path)
    if file.is_dir():
        raise RecipeError([f"{path}: is a folder; name the YAML file in it"])
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise RecipeError([f"{path}: no such file"]) from None
    except UnicodeDecodeError as error:
        raise RecipeError([f"{path}: not UTF-8 text: byte {error.start} cannot be read"]) from None
    except OSError as error:
        raise RecipeError([f"{path}: cannot be read: {error.strerror}"]) from None
    faults: list[str] = []
    lines: dict[Location, int] = {}
    try:
        value = parse(text, path, lines, faults)
    except RecipeError as error:
        raise RecipeError([f"{path}:{fault}" for fault in error.faults]) from None
    if value is None and not faults:
        raise RecipeError([f"{path}: is empty; a recipe is a mapping of keys to values"])
    if not isinstance(value, dict):
        raise RecipeError([f"{path}: holds {a_kind(value)}; a recipe is a mapping of keys to values"])
    if faults:
        raise RecipeError(faults)
    document = Document(path, value, lines)
    keys = [document.fault(*fault) for fault in keys_in(value)]
    if keys:
        raise RecipeError(keys)  # alone: other faults would show values
    return document


def parse_value(text: str) -> Any:
    """Read one value of the command line by the same rules.

    Raises: RecipeError where it is no YAML.
    """
    faults: list[str] = []
    value = parse(text, "", {}, faults)
    if faults:
        raise RecipeError([fault.split(": ", 1)[1] for fault in faults])
    return value


def parse(text: str, path: str, lines: dict[Location, int], faults: list[str]) -> Any:
    """Build the value of a YAML text, noting each key's line and each fault that does not stop the reading.

    Raises: RecipeError ("line:column: what") where the text is no YAML.
    """
    loader = _loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _build(loader, node, (), path, lines, faults, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise RecipeError([f"{place}: not YAML: {said}"]) from None
    finally:
        loader.dispose()


def _loader(text: str) -> StrictLoader:
    try:
        return StrictLoader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise RecipeError([f"{line}:1: not YAML: the character {_shown(error.character)} is not allowed"]) from None


def _shown(character: int | str) -> str:
    return repr(chr(character) if isinstance(character, int) else character)


def _build(
    loader: StrictLoader,
    node: yaml.Node,
    at: Location,
    path: str,
    lines: dict[Location, int],
    faults: list[str],
    parents: tuple[int, ...],
) -> Any:
    if id(node) in parents:
        raise yaml.constructor.ConstructorError(None, None, "an alias of its own parent", node.start_mark)
    parents = (*parents, id(node))
    if isinstance(node, yaml.ScalarNode):
        return _scalar(loader, node)
    if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
        raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag} is not allowed", node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            lines[(*at, index)] = child.start_mark.line + 1
        return [_build(loader, n, (*at, i), path, lines, faults, parents) for i, n in enumerate(node.value)]
    assert isinstance(node, yaml.MappingNode)
    seen: dict[str, int] = {}
    for key_node, _ in node.value:
        line = key_node.start_mark.line + 1
        key = str(key_node.value)
        if key in seen:
            spoken_key = spoken((*at, key))
            faults.append(f"{path}:{line}: {spoken_key}: given twice, first on line {seen[key]}; keep one")
        seen.setdefault(key, line)
    loader.flatten_mapping(node)
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
        here = (*at, str(key_node.value))
        lines[here] = key_node.start_mark.line + 1
        mapping[str(key_node.value)] = _build(loader, value_node, here, path, lines, faults, parents)
    return mapping


def _scalar(loader: StrictLoader, node: yaml.ScalarNode) -> Any:
    text = str(node.value)
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if kind == "str":
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if kind == "float":
        return float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))
    raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag} is not allowed", node.start_mark)


def a_kind(value: Any) -> str:
    """Name a value's kind: "a list", "text"."""
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "nothing")
