"""The scorer `format`: 1 if an answer matches a regular expression, or is JSON of a schema, else 0."""

from pathlib import Path

from alignment.calls.session import JudgeCalls
from alignment.config.schema import PolicyGradientRecipe
from alignment.config.schema.scorers import FormatEntry
from alignment.errors import JsonError, ScorerError, first_line
from alignment.strict_json import parse
from alignment.train.policy_gradient.experience import Columns
from reward.scorers.rows import RowScorer
from reward.verifiers.format import compile_pattern, compile_schema, matches, satisfies


def build(entry: FormatEntry, recipe: PolicyGradientRecipe, calls: JudgeCalls | None) -> RowScorer:
    """Return the scorer of a recipe.

    Raises: ScorerError if the schema's file cannot be read or holds none.
    """
    if entry.pattern is not None:
        pattern = compile_pattern(entry.pattern)

        def check(answer: str, row: Columns) -> float:
            return float(matches(answer, pattern, entry.full_match))

    else:
        assert entry.json_schema is not None
        schema = _schema_of(entry.json_schema)

        def check(answer: str, row: Columns) -> float:
            return float(satisfies(answer, schema))

    identity = entry.model_dump(include={"pattern", "full_match", "json_schema"}, exclude_none=True)
    return RowScorer(check, kind="format", timeout_seconds=entry.timeout_seconds, identity=identity)


def _schema_of(path: str) -> object:
    try:
        return compile_schema(parse(Path(path).read_bytes().decode()))
    except OSError as fault:
        raise ScorerError(f"json_schema {path} cannot be read: {fault.strerror}.") from None
    except (JsonError, UnicodeDecodeError) as fault:
        raise ScorerError(f"json_schema {path} is not JSON: {first_line(fault)}.") from None
