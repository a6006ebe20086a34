"""The reward `format`: an answer matches a regular expression, or is JSON that satisfies a JSON Schema.

A regular expression can take exponential time on some answers; the caller limits the time. `$ref` is resolved within
the schema and against the published meta-schemas only: nothing is fetched. As the standard recommends, the keyword
`format` ("email") is an annotation and refuses nothing.
"""

import re
from typing import Any

from alignment.errors import JsonError, ScorerError, first_line
from alignment.strict_json import parse, shown
from reward.verifiers.extras import require

_FENCE = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL | re.IGNORECASE)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return the compiled pattern.

    Raises: ScorerError if it is no regular expression of Python's `re`.
    """
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as fault:
        raise ScorerError(
            f"format pattern {shown(pattern)} is no regular expression: {first_line(fault)}; correct it."
        ) from None


def matches(answer: str, pattern: str | re.Pattern[str], full: bool = False) -> bool:
    """Return whether an answer matches a pattern.

    Args:
        full: the whole answer must match, without the white space around it; otherwise any part of it may.

    Raises: ScorerError if the pattern is no regular expression.
    """
    compiled = compile_pattern(pattern) if isinstance(pattern, str) else pattern
    found = compiled.fullmatch(answer.strip()) if full else compiled.search(answer)
    return found is not None


def compile_schema(schema: Any) -> Any:
    """Return the jsonschema validator of a schema: of the dialect in its `$schema`, or of draft 2020-12.

    Raises: ScorerError if the schema is invalid, its dialect is unknown, or a `$ref` points outside it.
    """
    jsonschema = require("jsonschema", "format")
    known = require("jsonschema_specifications", "format").REGISTRY
    if not isinstance(schema, dict | bool):
        raise ScorerError(f"format schema {shown(schema)} is a {type(schema).__name__}; it must be an object.")
    validator = _dialect(schema, jsonschema)
    try:
        validator.check_schema(schema)
    except jsonschema.SchemaError as fault:
        raise ScorerError(
            f"format schema is invalid at {fault.json_path}: {first_line(fault.message)}; correct it."
        ) from None
    _check_references(schema, validator, known)
    return validator(schema, registry=known)


def satisfies(answer: str, schema: Any) -> bool:
    """Return whether an answer is strict JSON, perhaps inside one ```json fence, and satisfies a schema.

    Args:
        schema: a JSON Schema, or the result of `compile_schema`.

    Raises: ScorerError as in `compile_schema`, and if validation with a recursive schema does not end.
    """
    validator = compile_schema(schema) if isinstance(schema, dict | bool) else schema
    fenced = _FENCE.fullmatch(answer)
    try:
        value = parse(fenced[1] if fenced else answer)
    except JsonError:
        return False
    try:
        return bool(validator.is_valid(value))
    except RecursionError:
        raise ScorerError("format schema refers to itself without end; correct its $ref.") from None


def _dialect(schema: Any, jsonschema: Any) -> Any:
    name = schema.get("$schema") if isinstance(schema, dict) else None
    if name is None:
        return jsonschema.Draft202012Validator
    try:
        found = jsonschema.validators.validator_for({"$schema": name}, default=None) if isinstance(name, str) else None
    except ValueError:  # no address at all
        found = None
    if found is None:
        raise ScorerError(f"format schema has the unknown $schema {shown(name)}; use a published draft.")
    return found


def _check_references(schema: Any, validator: Any, known: Any) -> None:
    unresolvable = require("referencing.exceptions", "format").Unresolvable
    dialect = require("referencing.jsonschema", "format")
    specification = dialect.specification_with(validator.META_SCHEMA["$schema"])
    root = specification.create_resource(schema)
    base = root.id() or ""
    resolver = known.with_resource(base, root).resolver(base)

    def check(resource: Any, resolver: Any) -> None:
        reference = resource.contents.get("$ref") if isinstance(resource.contents, dict) else None
        if isinstance(reference, str):
            try:
                resolver.lookup(reference)
            except (unresolvable, ValueError):  # ValueError: no address at all
                raise ScorerError(
                    f"format schema has the $ref {shown(reference)}, which is not in the schema; nothing is fetched: "
                    "copy the definition into $defs."
                ) from None
        for part in resource.subresources():
            check(part, resolver.in_subresource(part))

    check(root, resolver)
