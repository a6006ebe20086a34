"""Regular expressions and JSON Schemas, and every way in which one is invalid."""

import socket
from typing import Any

import pytest

from alignment.errors import ScorerError
from reward.verifiers.format import compile_pattern, compile_schema, matches, satisfies

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("answer", "full", "found"),
    [
        ("<think>a</think><answer>b</answer>", True, True),
        ("\n<think>a</think><answer>b</answer> ", True, True),
        ("So: <think>a</think><answer>b</answer>", True, False),
        ("So: <think>a</think><answer>b</answer> Bye", False, True),
        ("<answer>b</answer>", False, False),
        ("", True, False),
    ],
)
def test_a_pattern_matches_the_whole_answer_or_a_part(answer: str, full: bool, found: bool) -> None:
    pattern = "<think>.*</think><answer>.*</answer>"
    assert matches(answer, pattern, full) is found
    assert matches(answer, compile_pattern(pattern), full) is found


@pytest.mark.parametrize("pattern", ["(", "a{99999999999999}", "(?P<1>a)", "*" * 5000])
def test_an_invalid_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ScorerError, match=r"format pattern .* is no regular expression") as fault:
        compile_pattern(pattern)
    assert len(str(fault.value)) < 400


@pytest.mark.parametrize(
    "answer",
    [
        '{"name": "Ada", "age": 36}',
        ' {"name": "Ada"}\n',
        '```json\n{"name": "Ada"}\n```',
        '```\n{"name": "Ada"}\n```\n',
        '{"name": "Ada", "age": 36.0}',  # an integer in JSON Schema
    ],
)
def test_json_that_satisfies_the_schema(answer: str) -> None:
    assert satisfies(answer, PERSON)
    assert satisfies(answer, compile_schema(PERSON))


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Ada",
        '{"name": ""}',
        '{"age": 36}',
        '{"name": "Ada", "age": NaN}',
        '{"name": "Ada", "name": "Bob"}',
        '{"name": "Ada", "born": 1815}',
        'Here it is:\n```json\n{"name": "Ada"}\n```',
        '```json\n{"name": "Ada"}\n```\n```json\n{"name": "Bob"}\n```',
        "```json\n```",
        "[" * 100_000,
        "1" * 10_000,
    ],
)
def test_anything_else_does_not_satisfy_the_schema(answer: str) -> None:
    assert not satisfies(answer, PERSON)


def test_the_dialect_of_the_schema_decides() -> None:
    first_only = {"items": [{"type": "string"}]}  # a tuple in draft 7, invalid in 2020-12
    assert satisfies('["a", 1]', {"$schema": "http://json-schema.org/draft-07/schema#", **first_only})
    with pytest.raises(ScorerError, match=r"schema is invalid at \$.items"):
        compile_schema(first_only)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "text"}, r"format schema is invalid at \$.type: 'text' is not valid"),
        ({"pattern": "("}, r"format schema is invalid at \$.pattern"),
        ({"$schema": "https://example.com/mine"}, r"unknown \$schema 'https://example.com/mine'"),
        ({"$schema": 7}, r"unknown \$schema 7"),
        ({"$schema": "http://["}, r"unknown \$schema 'http://\['"),
        ({"$ref": "http://["}, "nothing is fetched"),
        ("object", "format schema 'object' is a str; it must be an object"),
        ({"$ref": "#/$defs/missing"}, r"the \$ref '#/\$defs/missing', which is not in the schema"),
        ({"properties": {"a": {"$ref": "https://example.com/a.json"}}}, "nothing is fetched"),
        ({"items": {"$ref": "file:///etc/passwd"}}, "nothing is fetched"),
    ],
)
def test_an_invalid_schema_is_refused_without_a_connection(
    schema: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("opened a connection")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(ScorerError, match=message) as fault:
        compile_schema(schema)
    assert "\n" not in str(fault.value)


def test_references_within_the_schema_and_to_published_drafts_are_resolved() -> None:
    names = {"$defs": {"name": {"type": "string"}}, "type": "array", "items": {"$ref": "#/$defs/name"}}
    assert satisfies('["a"]', names)
    assert not satisfies("[1]", names)
    anchored = {
        "$id": "https://example.com/root",
        "properties": {"a": {"$ref": "part#word"}, "const": {"const": {"$ref": "https://example.com/text"}}},
        "$defs": {"part": {"$id": "part", "$defs": {"w": {"$anchor": "word", "type": "string"}}}},
    }
    assert satisfies('{"a": "b"}', anchored)
    assert not satisfies('{"a": 1}', anchored)
    assert satisfies('{"type": "string"}', {"$ref": "https://json-schema.org/draft/2020-12/schema"})


def test_a_schema_that_refers_to_itself_without_end_is_an_error() -> None:
    with pytest.raises(ScorerError, match="refers to itself without end"):
        satisfies("1", {"$ref": "#"})
