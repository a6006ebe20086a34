"""YAML read strictly, by the rules of YAML 1.2, with the line of every key.

PyYAML reads YAML 1.1, where `5e-5` is text, `no` is false, `010` is eight and the last of two equal keys wins; a recipe
must mean what it says. What a text may hold is bounded: depth, digits, and values, those that aliases copy included.

ruamel.yaml reads YAML 1.2 with lines too, but ends at the first duplicate key, where all faults of a recipe are
reported at once, and with a RecursionError at a text of many brackets.
"""

import re
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from alignment import strict_json
from alignment.errors import RecipeError

Location = tuple[str | int, ...]  # ("datasets", 0, "path")

TAG = "tag:yaml.org,2002:"
SCALARS = [  # https://yaml.org/spec/1.2.2/#103-core-schema, in order of trial
    ("null", r"null|Null|NULL|~|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
]
KINDS = {"null": "null", "bool": "true or false", "int": "a whole number", "float": "a number"}
MERGE = "<<"
DEEPEST = 32  # mappings and lists inside one another
MOST = 20_000  # values, copies by aliases included
LARGEST = 2**63  # of whole numbers, either sign: no library takes more
LONGEST_NUMBER = 64  # characters


class StrictLoader(yaml.SafeLoader):
    """Resolves plain scalars by YAML 1.2's core schema, and reads no deeper than `DEEPEST`."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 as in the base
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose one node and those inside it.

        Raises: ConstructorError if it is too deep.
        """
        if self.depth > DEEPEST:
            at = self.peek_event()  # type: ignore[no-untyped-call]
            _refuse(f"more than {DEEPEST} mappings and lists inside one another", at)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _tag, _pattern, _first in SCALARS:
    StrictLoader.add_implicit_resolver(
        f"{TAG}{_tag}", re.compile(rf"^(?:{_pattern})\Z"), ["" if c == "\0" else c for c in _first]
    )
StrictLoader.add_implicit_resolver(f"{TAG}merge", re.compile(rf"^{MERGE}\Z"), ["<"])


def parse_yaml(text: str, path: str, lines: dict[Location, int], faults: list[str]) -> Any:
    """Build the value of a YAML text, noting each key's line and each fault that does not stop the reading.

    Raises: RecipeError ("line:column: fault") if the text is not YAML, or exceeds the limits of a recipe.
    """
    loader = _loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _Builder(path, lines, faults).build(node, (), ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        said = ", ".join(_shortened(part) for part in (error.context, error.problem) if part)
        raise RecipeError([f"{place}: not YAML: {said}"]) from None
    except (ValueError, OverflowError) as error:  # PyYAML's own, of a `\U` escape or a directive that is none
        raise RecipeError([f"1:1: not YAML: {_shortened(str(error))}"]) from None
    finally:
        loader.dispose()


def spoken(location: Location) -> str:
    """Return `datasets[0].path` for ("datasets", 0, "path")."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_key(step)}" for step in location)
    return text.removeprefix(".")


def dotted(location: Location) -> str:
    """Return `datasets.0.path` for ("datasets", 0, "path"), as on the command line."""
    return ".".join(_key(str(step)) for step in location)


def _key(key: str) -> str:
    """A key as messages show it: a line of its own, and no longer than one."""
    plain = key if key.isprintable() else repr(key)[1:-1]
    return plain if len(plain) <= 60 else f"{plain[:57]}..."


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 200 else f"{text[:197]}..."


def _loader(text: str) -> StrictLoader:
    try:
        return StrictLoader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise RecipeError([f"{line}:1: not YAML: the character {_shown(error.character)} is not allowed"]) from None


def _shown(character: int | str) -> str:
    return ascii(chr(character) if isinstance(character, int) else character)


def _refuse(what: str, at: Any) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, what, at.start_mark)


@dataclass
class _Builder:
    """Builds the values of one text."""

    path: str
    lines: dict[Location, int]
    faults: list[str]
    built: int = 0

    def build(self, node: yaml.Node, at: Location, parents: tuple[int, ...]) -> Any:
        """Return the value of a node at a location inside its parents."""
        self.built += 1
        if self.built > MOST:
            _refuse(f"more than {MOST:,} values, counting each copy that an alias makes", node)
        if id(node) in parents:
            _refuse("an alias of its own parent", node)
        if len(parents) > DEEPEST:
            _refuse(f"more than {DEEPEST} mappings and lists inside one another", node)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if node.tag != f"{TAG}{'map' if isinstance(node, yaml.MappingNode) else 'seq'}":
            _refuse(f"the tag {node.tag} is not allowed", node)
        parents = (*parents, id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at, parents)
        for index, child in enumerate(node.value):
            self.lines[(*at, index)] = child.start_mark.line + 1
        return [self.build(child, (*at, index), parents) for index, child in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, at: Location, parents: tuple[int, ...]) -> dict[str, Any]:
        seen: dict[str, int] = {}
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = _key_of(key_node), key_node.start_mark.line + 1
            if key in seen:
                twice = spoken((*at, key))
                self.faults.append(f"{self.path}:{line}: {twice}: given twice, first on line {seen[key]}; keep one")
            seen.setdefault(key, line)
            if key_node.tag == f"{TAG}merge":
                self._merge(value_node, at, parents, merged)
                continue
            self.lines[(*at, key)] = line
            own[key] = self.build(value_node, (*at, key), parents)
        return {**merged, **own}

    def _merge(self, node: yaml.Node, at: Location, parents: tuple[int, ...], merged: dict[str, Any]) -> None:
        """Add the mappings that `<<` names; of several with a key, the first wins."""
        here, self.lines = self.lines, {}
        for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            value = self.build(part, at, parents)
            if not isinstance(value, dict):
                _refuse(f"{MERGE} takes a mapping or a list of mappings", part)
            for key, inner in value.items():
                merged.setdefault(key, inner)
        for place, line in self.lines.items():
            here.setdefault(place, line)  # a key of the mapping itself keeps its line
        self.lines = here


def _key_of(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        _refuse("a key must be a plain word", node)
    if node.tag not in (f"{TAG}merge", f"{TAG}str", *(f"{TAG}{kind}" for kind in KINDS)):
        _refuse(f"the tag {node.tag} is not allowed", node)
    _require_text(str(node.value), node)
    return str(node.value)


def _require_text(text: str, node: yaml.Node) -> None:
    if not strict_json.is_whole(text):
        _refuse("half of a surrogate pair, which is not a character", node)
    if "\0" in text:
        _refuse("the character '\\x00' is not allowed", node)


def _scalar(node: yaml.ScalarNode) -> Any:
    text = str(node.value)
    kind = node.tag.removeprefix(TAG)
    if kind == "str":
        _require_text(text, node)
        return text
    patterns = [pattern for name, pattern, _ in SCALARS if name == kind]
    if node.tag != f"{TAG}{kind}" or not patterns:
        _refuse(f"the tag {node.tag} is not allowed", node)
    if not any(re.fullmatch(pattern, text) for pattern in patterns):
        _refuse(f"{strict_json.shown(text)} is not {KINDS[kind]}, as the tag !!{kind} has it", node)
    if len(text) > LONGEST_NUMBER:
        _refuse(f"a number of {len(text):,} characters; no key takes more than {LONGEST_NUMBER}", node)
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "float":
        return float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))
    number = int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if not -LARGEST <= number < LARGEST:
        _refuse(f"{strict_json.shown(number)} is a whole number beyond 64 bits, which no key takes", node)
    return number


def a_kind(value: Any) -> str:
    """Name a value's kind: "a list", "text"."""
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "nothing")
