"""Jinja for templates of unknown origin: no code, no private attributes, and bounded work.

The filters `choice`, `most_frequent` and `highlight`, and the function `zip`, are promptsource's
(https://github.com/bigscience-workshop/promptsource, promptsource/templates.py).
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.sandbox import SandboxedEnvironment

from alignment.data.prepare.template.wording import in_plain_words

WORK = 2_000_000  # units of one rendering; a unit is a character that is read or written
WORK_PER_CHARACTER = 50  # further units for each character of the row
ROUND = 20  # units of a round of a loop, or of a call
LONGEST = 64  # digits of a power, about
FILTERS = (
    "abs capitalize choice count d default dictsort e escape first float format groupby highlight int items join last "
    "length list lower map max min most_frequent random reject rejectattr replace reverse round safe select selectattr "
    "sort string striptags sum title tojson trim truncate unique upper wordcount"
).split()
# Filters that look at some entries of a list, or at its length; the others may write all that its entries hold.
LISTS = frozenset(
    "choice count d default dictsort first groupby items last length list map max min most_frequent random reject "
    "rejectattr reverse select selectattr sort sum unique".split()
)
METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        "capitalize casefold count endswith find index isalpha isdigit islower isnumeric isspace istitle isupper join "
        "lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip split "
        "splitlines startswith strip swapcase title upper".split()
    ),
    list: frozenset("append count extend index insert pop remove reverse sort".split()),
    dict: frozenset("get items keys pop setdefault update values".split()),
    tuple: frozenset(["count", "index"]),
    set: frozenset(),
}
GLOBALS = ("range", "dict", "namespace", "cycler", "joiner")


class TemplateFault(Exception):
    """A template cannot be read, or cannot be rendered for a row."""


class Missing(TemplateFault):
    """A row has no value that a template reads inside a column."""


@dataclass
class _Work:
    """What one rendering may still do, and its random numbers."""

    left: int
    dice: random.Random

    def charge(self, units: int) -> None:
        self.left -= units
        if self.left < 0:
            raise TemplateFault("takes too long, or writes too much, for the row's length")


class Sandbox(SandboxedEnvironment):
    """Compiles templates and renders them with limited work."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(undefined=jinja2.StrictUndefined, finalize=self._written)
        self._work = _Work(WORK, random.Random(0))
        own: dict[str, Callable[..., Any]] = {
            "choice": lambda items: self._work.dice.choice(_drawable(items)),
            "random": lambda items: self._work.dice.choice(_drawable(items)),
            "most_frequent": _most_frequent,
            "highlight": lambda text: text,
            "replace": self._replace,
            "format": _format,
        }
        kept = {name: own.get(name) or self.filters[name] for name in FILTERS}
        kept |= {"_round": self._round, "_joined": self._joined}
        self.filters = {
            name: self._charged(one, _size if name in LISTS else self._weight) for name, one in kept.items()
        }
        self.globals = {**{name: self.globals[name] for name in GLOBALS}, "zip": zip}

    def compiled(self, text: str) -> "Compiled":
        """Return a template.

        Raises: TemplateFault if it is not Jinja, loads another template, or uses what templates may not.
        """
        self.begin(random.Random(0), 0)  # Jinja computes constant expressions while it compiles
        try:
            tree = self.parse(text)
            _require_harmless(tree, self)
            fields = frozenset(meta.find_undeclared_variables(tree) - self.globals.keys())
            return Compiled(self, self.from_string(_bounded(tree)), fields)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateFault(f"line {error.lineno}: {error.message}") from None
        except (jinja2.TemplateError, RecursionError) as error:
            raise TemplateFault(str(error) or "is nested too deeply") from None

    def begin(self, dice: random.Random, size: int) -> None:
        """Begin the rendering of a row of `size` characters."""
        self._work = _Work(WORK + WORK_PER_CHARACTER * size, dice)

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function or a method that templates may call."""
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if type(owner) in METHODS and name not in METHODS[type(owner)]:
            raise TemplateFault(f"calls {name}(), which a template may not")
        self._work.charge(ROUND + (len(owner) if isinstance(owner, str) else 0) + sum(map(self._weight, args)))
        if isinstance(owner, str) and name == "replace":
            return self._replace(owner, *args)  # `str.replace` takes no names; Jinja adds some of its own
        found = super().call(context, function, *args, **kwargs)
        self._work.charge(_size(found))
        return found

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Return the result of an operator, if its size is limited."""
        if operator == "%" and isinstance(left, str | bytes):
            raise TemplateFault("formats a text with %, which a template may not")
        if operator == "**":
            if not all(isinstance(each, int | float) for each in (left, right)) or abs(right) > LONGEST:
                raise TemplateFault("raises to a power that is too large")
            self._work.charge(ROUND + len(str(left)) * int(abs(right)))
        elif operator == "*":
            factor = next((each for each in (left, right) if isinstance(each, int)), 1)
            self._work.charge(ROUND + _size(left) * max(factor, 0) + _size(right) * max(factor, 0))
            if all(isinstance(each, int) for each in (left, right)):
                self._work.charge(left.bit_length() + right.bit_length())
        else:
            self._work.charge(ROUND + _size(left) + _size(right))
        return super().call_binop(context, operator, left, right)

    def _written(self, value: Any) -> Any:
        self._work.charge(self._weight(value))
        return value

    def _weight(self, value: Any) -> int:
        """Return the characters and entries of a value and all values in it, counted as far as the work allows."""
        found, rest = 0, [value]
        while rest and found <= self._work.left:
            one = rest.pop()
            found += 1
            if isinstance(one, str | bytes):
                found += len(one)
            elif isinstance(one, dict):
                rest += [*one, *one.values()]
            elif isinstance(one, list | tuple | set):
                rest += one
            elif isinstance(one, int):
                found += one.bit_length() // 3
        return found

    def _round(self, _: str) -> str:
        return ""

    def _joined(self, parts: list[Any]) -> str:
        return "".join(map(str, parts))

    def _replace(self, text: Any, old: Any, new: Any, count: int = -1) -> str:
        text, old, new = str(text), str(old), str(new)
        self._work.charge(ROUND + len(text) + text.count(old) * len(new))
        return text.replace(old, new, -1 if count is None else count)

    def _charged(self, function: Callable[..., Any], size: Callable[[Any], int]) -> Callable[..., Any]:
        """Return a filter that is charged by the size of what it takes and gives."""
        passed = getattr(function, "jinja_pass_arg", None)

        @jinja2.pass_context  # without it, Jinja computes filters of constants once, when a template is compiled
        def charged(context: Any, *args: Any, **kwargs: Any) -> Any:
            self._work.charge(ROUND + sum(map(size, args)))
            first = {
                None: (),
                "context": (context,),
                "eval_context": (context.eval_ctx,),
                "environment": (self,),
            }[passed.name if passed is not None else None]
            found = function(*first, *args, **kwargs)
            if isinstance(found, str | list | tuple):
                self._work.charge(_size(found))
            return found

        return charged


@dataclass(frozen=True)
class Compiled:
    """A template and the columns that it reads."""

    sandbox: Sandbox
    template: jinja2.Template
    fields: frozenset[str]

    def render(self, values: dict[str, Any]) -> str:
        """Return the text for the values of a row.

        Raises: TemplateFault if it cannot be rendered.
        """
        try:
            return self.template.render(values)
        except TemplateFault:
            raise
        except (MemoryError, RecursionError) as error:
            raise TemplateFault("takes too much memory, or is nested too deeply") from error
        except jinja2.UndefinedError as error:
            raise Missing(f"reads what the row has not: {in_plain_words(error)}") from error
        except Exception as error:  # of the template's own operations on the row's values
            raise TemplateFault(f"cannot be rendered: {in_plain_words(error)}") from error


def _require_harmless(tree: nodes.Template, environment: Sandbox) -> None:
    """Refuse what is no template of one text: other templates, private attributes, unknown filters."""
    for loaded in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        raise TemplateFault(f"line {loaded.lineno}: loads another template, which is not read")
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        name = getattr(node, "attr", None) or getattr(getattr(node, "arg", None), "value", None)
        if isinstance(name, str) and name.startswith("_"):
            raise TemplateFault(f"line {node.lineno}: reads {name}, which a template may not")
    for used in tree.find_all(nodes.Filter):
        if used.name not in environment.filters or used.name.startswith("_"):
            raise TemplateFault(f"line {used.lineno}: the filter {used.name} is not one of {', '.join(FILTERS)}")


def _bounded(tree: nodes.Template) -> nodes.Template:
    """Charge every round of a loop, every call of a macro, and every text that `~` joins."""
    for node in list(tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock))):
        node.body.insert(0, nodes.Output([_filter(nodes.Const(""), "_round")]))  # type: ignore[attr-defined]
    for parent in [tree, *tree.find_all(nodes.Node)]:
        for name, value in list(parent.iter_fields()):
            if isinstance(value, list):
                setattr(parent, name, [_unjoined(each) for each in value])
            else:
                setattr(parent, name, _unjoined(value))
    return tree


def _unjoined(node: Any) -> Any:
    return _filter(nodes.List(node.nodes), "_joined") if isinstance(node, nodes.Concat) else node


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno or 1)


def _size(value: Any) -> int:
    """Return the characters or entries of a value."""
    return len(value) if isinstance(value, str | bytes | list | tuple | dict | set) else 0


def _drawable(items: Iterable[Any]) -> Sequence[Any]:
    found = items if isinstance(items, str) else list(items)
    if not found:
        raise TemplateFault("draws from nothing")
    return found


def _format(form: Any, *values: Any) -> str:
    """Return values in the form of `%`, without widths that make long texts."""
    if re.search(r"%[^a-zA-Z%]*(\*|\d{3})", str(form)):
        raise TemplateFault("formats to a width of three digits or more, which a template may not")
    return str(form) % values


def _most_frequent(items: Iterable[Any]) -> list[Any] | None:
    """Return the items that occur most often."""
    counts = Counter(items).most_common()
    return [item for item, count in counts if count == counts[0][1]] if counts else None


def sizes(value: Any) -> Iterator[int]:
    """Yield the characters of all texts in a row."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from sizes(one)
    else:
        yield len(str(value))
