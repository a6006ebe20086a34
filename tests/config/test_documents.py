"""Strict YAML: 1.2 scalars, line numbers, and errors that say where."""

import math

import pytest

from alignment.config.documents import parse_value, read_document
from alignment.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("1E3", 1000.0),
        ("1e-6", 1e-6),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", -math.inf),
        ("12", 12),
        ("010", 10),  # YAML 1.1 reads eight
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", "1_000"),  # YAML 1.1 reads a thousand
        ("12:30:45", "12:30:45"),  # YAML 1.1 reads 45045
        ("2024-01-01", "2024-01-01"),  # YAML 1.1 reads a date
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("'5e-5'", "5e-5"),
        ("[1, {a: 2e-1}]", [1, {"a": 0.2}]),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_every_key_knows_its_line(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("a: 1\n\njudge:\n  kind: rules\nlist:\n  - path: p\n    name: n\n  - path: q\n")
    document = read_document(str(file))
    assert document.lines[("a",)] == 1
    assert document.lines[("judge", "kind")] == 4
    assert document.lines[("list", 0, "name")] == 7
    assert document.lines[("list", 1, "path")] == 8
    assert document.fault(("list", 1, "nope"), "bad") == f"{file}:8: list[1].nope: bad"
    assert document.fault(("nowhere",), "bad") == f"{file}: nowhere: bad"


def test_anchors_and_merges_work_and_keep_their_lines(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("base: &b {x: 1, y: 2}\nmine:\n  <<: *b\n  y: 3\n")
    assert read_document(str(file)).values["mine"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; a recipe is a mapping of keys to values"),
        (b"# nothing\n", "is empty"),
        (b"- a\n- b\n", "holds a list; a recipe is a mapping"),
        (b"just words\n", "holds text; a recipe is a mapping"),
        (b"a: 1\nb: [1, 2\nc: 3\n", ":3:2: not YAML: while parsing a flow sequence, expected ',' or ']'"),
        (b"a:\n\t- 1\n", ":2:1: not YAML: while scanning for the next token, found character '\\t'"),
        (b"a: b: c\n", ":1:5: not YAML: mapping values are not allowed here"),
        (b"a: \xff\xfe\n", "not UTF-8 text: byte 3"),
        (b"a: \x00\n", ":1:1: not YAML: the character '\\x00' is not allowed"),
        (b"\xef\xbb\xbf", "is empty"),  # a byte-order mark alone
        (b"a: 1\n---\nb: 2\n", "not YAML: expected a single document"),
        (b"a: !!python/object/apply:os.system [id]\n", ":1:4: not YAML: the tag tag:yaml.org,2002:python/object"),
        (b"a: !secret x\n", ":1:4: not YAML: the tag !secret is not allowed"),
        (b"a: &a [*a]\n", "an alias of its own parent"),
        (b"? [1, 2]\n: 3\n", "a key must be a plain word"),
        (b"a: 1\nb: 2\na: 3\n", ":3: a: given twice, first on line 1; keep one"),
        (b"j:\n  x: 1\n  x: 2\n", ":3: j.x: given twice, first on line 2; keep one"),
        (b"a: *nope\n", ":1:4: not YAML: found undefined alias 'nope'"),
    ],
)
def test_bad_files_say_what_and_where(tmp_path, content, message):
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(RecipeError) as error:
        read_document(str(file))
    assert str(error.value).startswith(str(file))
    assert message in str(error.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.yaml: no such file$"):
        read_document(str(tmp_path / "none.yaml"))
    with pytest.raises(RecipeError, match="is a folder; name the YAML file in it"):
        read_document(str(tmp_path))
