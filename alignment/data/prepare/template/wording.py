"""Python's messages about a template's operations, in the words of templates and data."""

import re

_TYPES = {
    "dict": "a mapping", "list": "a list", "tuple": "a list", "str": "a text", "int": "a number", "float": "a number",
    "bool": "true or false", "NoneType": "null", "None": "null", "Undefined": "a value that the row has not",
    "Macro": "a macro", "builtin_function_or_method": "a method", "method": "a method",
}  # fmt: skip
_TYPE = rf"""['"]?({"|".join(_TYPES)})(?:['"]? object['"]?|['"])"""
_RULES = (
    (r"\bl_\d+_(\w+)", r"\1"),  # Jinja's Python name of a variable
    (r"object of type '(\w+)' has no len\(\)", r"'\1' object has no length"),
    (
        r'can only concatenate (\w+) \(not "(\w+)"\) to \w+',
        r"'\1' object and '\2' object cannot be added; ~ joins texts",
    ),
    (r"unsupported operand type\(s\) for (\S+): ('\w+') and ('\w+')", r"\2 and \3 cannot be combined by \1"),
    (r"'(\S+)' not supported between instances of ('\w+') and ('\w+')", r"\2 and \3 cannot be compared by \1"),
    (r"cannot unpack non-iterable (\w+) object", r"'\1' object cannot be taken apart into several variables"),
    (r"is not iterable", "has no entries to go through"),
    (r"is not callable", "cannot be called"),
    (r"has no attribute", "has no"),
    (r"has no element (\S+)", r"has no entry \1"),
)


def in_plain_words(error: Exception) -> str:
    """Return the message of an error without names of Python's types and of compiled variables."""
    text = str(error) or type(error).__name__
    for pattern, words in _RULES:
        text = re.sub(pattern, words, text)
    return re.sub(_TYPE, lambda match: _TYPES[match[1]], text)
