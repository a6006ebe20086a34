"""The keys that TRL and transformers add to a recipe, read from their source.

Importing a trainer configuration takes seconds and loads torch; its source is parsed instead, in milliseconds.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from alignment.config.module_source import source_of
from alignment.errors import RecipeError

KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "dict": "a mapping",
    "none": "null",
}
FILES = {  # keys of the trainer configurations that name files: whether their content decides the result
    "deepspeed": True,
    "fsdp_config": True,
    "accelerator_config": False,
    "logging_dir": False,
}
OUR_DEFAULTS: dict[str, Any] = {  # of the trainer configurations' keys, in place of the library's
    "ddp_find_unused_parameters": False,  # all trained parameters are used, and the search costs time
    "logging_nan_inf_filter": False,  # which would hide NaN from the logs
    "logging_steps": 10,
    "save_total_limit": 2,
}
TRACKERS = "INTEGRATION_TO_CALLBACK"  # where transformers lists what it can report to
ALSO = {"loss_type": frozenset({"str"})}  # DPOConfig wraps a single name into its list


@dataclass(frozen=True, slots=True)
class Kind:
    """What values a key takes."""

    names: frozenset[str] = frozenset()  # of KINDS
    items: "Kind | None" = None  # also lists of these; an empty Kind is anything
    choices: tuple[str, ...] = ()  # where not empty, the only texts allowed

    def __or__(self, other: "Kind") -> "Kind":
        """Return the kind that takes what either takes."""
        items = self.items | other.items if self.items and other.items else self.items or other.items
        return Kind(self.names | other.names, items, self.choices + other.choices)

    def accepts(self, value: Any) -> bool:
        """Return whether a value read from YAML is accepted; a whole number is a number, a boolean is not."""
        if not self.names and self.items is None and not self.choices:
            return True
        if isinstance(value, list):
            return self.items is not None and all(self.items.accepts(item) for item in value)
        if isinstance(value, str):
            return value in self.choices if self.choices else "str" in self.names
        if value is None:
            return "none" in self.names
        if isinstance(value, bool):
            return "bool" in self.names
        if isinstance(value, int):
            return "int" in self.names or "float" in self.names
        if isinstance(value, float):
            return "float" in self.names
        return isinstance(value, dict) and "dict" in self.names

    def __str__(self) -> str:
        """Return "a whole number or null"."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        said = [text for name, text in KINDS.items() if name in self.names and name != "none"]
        if "float" in self.names and "int" in self.names:
            said.remove(KINDS["int"])
        if self.items is not None:
            said.append(f"a list of {self.items}" if self.items != Kind() else "a list")
        if "none" in self.names:
            said.append("null")
        return " or ".join(said) or "anything"


ANYTHING = Kind()


@lru_cache
def trainer_keys(spec: str) -> dict[str, Kind]:
    """Return the fields of a dataclass, its bases' included, without importing it.

    Args:
        spec: "package.module:Class".

    Raises: RecipeError if the package is not installed or has no such class.
    """
    module, _, name = spec.partition(":")
    found = _find(_file_of(module), name)
    if found is None:
        raise RecipeError([f"{spec}: the installed {module.partition('.')[0]} has no such class"])
    return dict(_fields(*found))


@lru_cache
def trainer_texts(spec: str) -> dict[str, tuple[str, str]]:
    """Return the default of each field of a dataclass, as its source has it, and the first sentence of its help.

    A field without a constant default, or without help, has "".
    """
    found = _find(_file_of(spec.partition(":")[0]), spec.partition(":")[2])
    return {name: _texts(value) for _, name, _, value in _statements(*found)} if found else {}


@lru_cache
def trackers() -> tuple[str, ...]:
    """Return the names that `report_to` takes: the keys of transformers' own table, and its `all` and `none`."""
    for node in _module(_file_of("transformers.integrations.integration_utils")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            if any(isinstance(target, ast.Name) and target.id == TRACKERS for target in node.targets):
                return ("all", "none", *(str(ast.literal_eval(key)) for key in node.value.keys if key is not None))
    return ()


def _file_of(module: str) -> Path:
    file = source_of(module)
    if file is None:
        top = module.partition(".")[0]
        raise RecipeError([f"the package {top} is not installed; run `pip install {top}`"])
    return file


@lru_cache
def _module(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else ast.Module([], [])


def _find(file: Path, name: str, depth: int = 0) -> tuple[Path, ast.ClassDef] | None:
    """Find a class where a module defines it or imports it from."""
    tree = _module(file)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return file, node
    for node in _imports(tree):
        if depth < 5 and any((alias.asname or alias.name) == name for alias in node.names):
            found = _find(_target(file, node), name, depth + 1)
            if found:
                return found
    return None


def _alias(file: Path, name: str) -> ast.expr | None:
    """Return what a module calls `name` for short, such as `Literal["a", "b"]`."""
    for node in _module(file).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return node.value if isinstance(node.value, ast.Subscript) else None
    return None


def _imports(tree: ast.Module) -> Iterator[ast.ImportFrom]:
    for node in tree.body:
        inner = [*node.body, *node.orelse] if isinstance(node, ast.If) else [node]  # `if TYPE_CHECKING:`
        yield from (n for n in inner if isinstance(n, ast.ImportFrom))


def _target(file: Path, node: ast.ImportFrom) -> Path:
    if not node.level:
        return _file_of(node.module or "")
    folder = file.parents[node.level - 1]
    path = folder.joinpath(*(node.module or "").split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _fields(file: Path, node: ast.ClassDef) -> Iterator[tuple[str, Kind]]:
    for home, name, annotation, value in _statements(file, node):
        kind = _kind(home, annotation)
        if name in ALSO:
            kind = kind | Kind(ALSO[name])
        yield name, replace(kind, choices=_choices(value)) if _choices(value) else kind


def _statements(file: Path, node: ast.ClassDef) -> Iterator[tuple[Path, str, ast.expr, ast.expr | None]]:
    """Yield the fields of a dataclass and of its bases: file, name, annotation and default."""
    for base in node.bases:
        found = _find(file, base.id) if isinstance(base, ast.Name) else None
        if found:
            yield from _statements(*found)
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        name = statement.target.id
        if name.startswith("_") or "ClassVar" in ast.dump(statement.annotation) or _is_internal(statement.value):
            continue
        yield file, name, statement.annotation, statement.value


def _texts(value: ast.expr | None) -> tuple[str, str]:
    if not isinstance(value, ast.Call):
        return (ast.unparse(value) if isinstance(value, ast.Constant) else ""), ""
    keywords = {keyword.arg: keyword.value for keyword in value.keywords}
    default, metadata = keywords.get("default"), keywords.get("metadata")
    texts = {}
    if isinstance(metadata, ast.Dict):
        pairs = zip(metadata.keys, metadata.values, strict=True)
        texts = {key.value: item.value for key, item in pairs
                 if isinstance(key, ast.Constant) and isinstance(item, ast.Constant)}  # fmt: skip
    sentence = re.split(r"(?<=\.)\s", " ".join(str(texts.get("help", "")).split()), maxsplit=1)[0]
    return (ast.unparse(default) if isinstance(default, ast.Constant) else ""), sentence


def _is_internal(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Call) and any(
        keyword.arg == "init" and isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        for keyword in value.keywords
    )


def _choices(value: ast.expr | None) -> tuple[str, ...]:
    """Return what `field(metadata={"choices": [...]})` lists."""
    for keyword in value.keywords if isinstance(value, ast.Call) else ():
        if keyword.arg == "metadata" and isinstance(keyword.value, ast.Dict):
            for key, item in zip(keyword.value.keys, keyword.value.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "choices" and isinstance(item, ast.List):
                    return tuple(str(e.value) for e in item.elts if isinstance(e, ast.Constant))
    return ()


def _kind(file: Path, annotation: ast.expr) -> Kind:
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _union(file, [left, right])
        case ast.Constant(value=None):
            return Kind(frozenset({"none"}))
        case ast.Constant(value=str(text)):
            return _kind(file, ast.parse(text, mode="eval").body)
        case ast.Name(id=("int" | "float" | "bool" | "str" | "dict") as name):
            return Kind(frozenset({name}))
        case ast.Name(id="list"):
            return Kind(items=ANYTHING)
        case ast.Name(id="Any"):
            return ANYTHING
        case ast.Name(id=name):
            return _named(file, name)
        case ast.Subscript(value=ast.Name(id=name), slice=inner):
            return _subscripted(file, name, inner)
    return ANYTHING


def _subscripted(file: Path, name: str, inner: ast.expr) -> Kind:
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    match name:
        case "Optional":
            return _union(file, [inner]) | Kind(frozenset({"none"}))
        case "Union":
            return _union(file, parts)
        case "dict" | "Dict":
            return Kind(frozenset({"dict"}))
        case "list" | "List":
            return Kind(items=_kind(file, inner))
        case "Literal":
            values = [part.value for part in parts if isinstance(part, ast.Constant)]
            texts = tuple(value for value in values if isinstance(value, str))
            names = {"bool" for value in values if isinstance(value, bool)} | ({"str"} if texts else set())
            return Kind(frozenset(names), choices=texts)
    return ANYTHING


def _union(file: Path, parts: list[ast.expr]) -> Kind:
    """Unite kinds. An enumeration in a union with `str` keeps its choices, because the library refuses other texts."""
    kinds = [_kind(file, part) for part in parts]
    if any(kind == ANYTHING for kind in kinds):
        return ANYTHING
    united = kinds[0]
    for kind in kinds[1:]:
        united = united | kind
    return united


def _named(file: Path, name: str) -> Kind:
    found = _find(file, name)
    if found is None:
        alias = _alias(file, name)
        return _kind(file, alias) if alias is not None else ANYTHING
    bases = [getattr(base, "attr", getattr(base, "id", "")) for base in found[1].bases]
    if not any(base.endswith("Enum") for base in bases):
        is_dataclass = any("dataclass" in ast.dump(each) for each in found[1].decorator_list)
        return Kind(frozenset({"dict"})) if is_dataclass else ANYTHING
    values = [s.value.value for s in found[1].body if isinstance(s, ast.Assign) and isinstance(s.value, ast.Constant)]
    return Kind(frozenset({"str"}), choices=tuple(str(value) for value in values))
