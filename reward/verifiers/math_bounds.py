"""Bounds on SymPy expressions, so that comparing two of them takes no unreasonable time."""

import math
from typing import Any

from reward.verifiers.extras import require

_MOST_NODES = 150
_MOST_BITS = 100_000  # of a number
_SUM_WEIGHT = 500  # of the power of a sum with symbols, which is expanded: (x+1)**50 is allowed, (x+1)**100 is not
_HEAVY = frozenset(["Sum", "Product", "Integral", "Limit", "Derivative"])  # evaluated by `doit`, without a bound
_DIGITS = 30  # of the numbers that are compared
_UNEQUAL = 1e-5  # relative; math-verify rounds floats to 1e-6


def is_bounded(expression: Any) -> bool:
    """Return whether an expression has few nodes and only numbers and powers of a moderate size."""
    nodes = 0
    todo = [expression]
    while todo:
        node = todo.pop()
        nodes += 1
        if nodes > _MOST_NODES or type(node).__name__ in _HEAVY:
            return False
        todo.extend(_parts(node))
    return _bits(expression) <= _MOST_BITS


def same_as_numbers(first: Any, second: Any) -> bool | None:
    """Compare two expressions at one point, with symbols replaced by numbers.

    Returns: False if they clearly differ; None if only a symbolic comparison can decide.
    """
    kind = require("sympy", "math").Expr
    if not (isinstance(first, kind) and isinstance(second, kind)) or first.is_Symbol or second.is_Symbol:
        return None
    if _has_percent(first) or _has_percent(second):
        return None
    a, b = _at_a_point(first), _at_a_point(second)
    if a is None or b is None:
        return None
    return None if abs(a - b) <= _UNEQUAL * max(1.0, abs(a), abs(b)) else False


def _parts(node: Any) -> list[Any]:
    flat = getattr(node, "flat", None)  # of a matrix
    return list(flat()) if callable(flat) else list(getattr(node, "args", ()))


def _bits(node: Any) -> float:
    """Return an upper bound on the binary digits of a number, also of those on the way to it."""
    if getattr(node, "is_Rational", False):
        return float(max(int(node.p).bit_length(), int(node.q).bit_length(), 1))
    if getattr(node, "is_Float", False):
        return abs(float(node.num.man_exp[1])) + 64 if hasattr(node.num, "man_exp") else 64.0
    parts = [_bits(part) for part in _parts(node)]
    if not parts:
        return 2.0  # a symbol, pi
    name = type(node).__name__
    if name in ("Pow", "exp"):
        base, exponent = (parts[0], parts[1]) if name == "Pow" else (2.0, parts[0])
        if getattr(node, "free_symbols", None):
            base *= 1.0 if name == "exp" or node.base.is_Symbol else _SUM_WEIGHT
        return base * 2.0 ** min(exponent, 60.0)
    if name in ("factorial", "factorial2", "gamma", "binomial", "subfactorial"):
        return 2.0 ** min(max(parts), 60.0) * max(parts)
    return sum(parts)


def _has_percent(expression: Any) -> bool:
    return any(type(node).__name__ == "UnevaluatedExpr" for node in [expression, *_parts(expression)])


def _at_a_point(expression: Any) -> complex | None:
    symbols = sorted(expression.free_symbols, key=str)
    point = {symbol: _value(str(symbol)) for symbol in symbols}
    try:
        value = complex(expression.evalf(_DIGITS, subs=point))
    except (TypeError, ValueError, ArithmeticError, AttributeError, RecursionError):
        return None
    return value if math.isfinite(value.real) and math.isfinite(value.imag) else None


def _value(name: str) -> Any:
    """Return a number between 1 and 2 for a symbol: the same for the same name."""
    fraction = sum(ord(letter) * 7_919**i for i, letter in enumerate(name)) % 999_983
    return require("sympy", "math").Rational(1_000_003 + fraction, 1_000_003)
