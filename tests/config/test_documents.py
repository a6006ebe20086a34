"""Strict YAML: 1.2 scalars, line numbers, and errors that say where."""

import math
import os

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


def test_every_key_has_its_line(tmp_path):
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


def bomb(levels: int, merge: bool = False) -> str:
    """A text of some hundred bytes whose aliases copy one another to 9 ** levels values."""
    of = "{{<<: [{}], k{}: 1}}" if merge else "[{}]"
    lines = ["a0: &a0 {x: 1}" if merge else "a0: &a0 x"]
    for level in range(levels):
        lines.append(f"a{level + 1}: &a{level + 1} " + of.format(", ".join([f"*a{level}"] * 9), level))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(9), "more than 20,000 values, counting each copy that an alias makes"),
        (bomb(9, merge=True), "more than 20,000 values, counting each copy"),
        ("a: " + "[" * 100 + "]" * 100, "more than 32 mappings and lists inside one another"),
        ("a: " + "[" * 100_000, "more than 32 mappings and lists inside one another"),
        ("a: " + "{b: " * 5_000, "more than 32 mappings and lists inside one another"),
        ("".join(f"{' ' * i}a:\n" for i in range(500)), "more than 32 mappings and lists inside one another"),
        ("a: " + "- " * 200 + "x", "not YAML"),
        ("a: [" + "1," * 30_000 + "]", "more than 20,000 values"),
        ("a: " + "9" * 5_000, "a number of 5,000 characters"),
        ("a: 0x" + "f" * 5_000, "a number of 5,002 characters"),
        ("a: 99999999999999999999", "beyond 64 bits"),
        ("a: !!int abc", "'abc' is not a whole number, as the tag !!int has it"),
        ("a: !!int ''", "'' is not a whole number"),
        ("a: !!bool maybe", "'maybe' is not true or false, as the tag !!bool has it"),
        ("a: !!bool yes", "'yes' is not true or false"),
        ("a: !!float one", "'one' is not a number"),
        ("a: !!null zero", "'zero' is not null"),
        ("a: !!timestamp 2024-01-01", "the tag tag:yaml.org,2002:timestamp is not allowed"),
        ("a: !!binary aGk=", "the tag tag:yaml.org,2002:binary is not allowed"),
        ("a: !!set {x, y}", "the tag tag:yaml.org,2002:set is not allowed"),
        ("a: !!omap [x: 1]", "the tag tag:yaml.org,2002:omap is not allowed"),
        ("a: !!seq {x: 1}", "the tag tag:yaml.org,2002:seq is not allowed"),
        ("a: !!map [x]", "the tag tag:yaml.org,2002:map is not allowed"),
        ("a: !!merge x", "the tag tag:yaml.org,2002:merge is not allowed"),
        ("!!binary YQ==: 1", "the tag tag:yaml.org,2002:binary is not allowed"),
        ("!!python/name:os.system x: 1", "is not allowed"),
        ("a: !str x", "the tag !str is not allowed"),
        ("a: {<<: 3}", "<< takes a mapping or a list of mappings"),
        ("a: {<<: [1]}", "<< takes a mapping or a list of mappings"),
        ("a: &x {<<: *x}", "an alias of its own parent"),
        ("a: {<<: {}, <<: {}}", "given twice"),
        ('a: "\\ud800"', "half of a surrogate pair"),
        ('"\\udfff": 1', "half of a surrogate pair"),
        ('a: "x\\0y"', "the character '\\x00' is not allowed"),
        ('a: "\\Uffffffff"', "not YAML"),
        ("%YAML 99999999999.1\n--- {a: 1}", "not YAML"),
        ("a: *nowhere", "found undefined alias"),
        ("a: 1\n'a': 2", "given twice, first on line 1"),
        ("a: 1\n? a\n: 2", "given twice, first on line 1"),
        ("x" * 300_000 + ": 1", "larger than 256 KiB"),
    ],
)
def test_oversized_recipes_are_refused_in_bounded_time(tmp_path, text, message):
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError) as error:
        read_document(str(file))
    assert message in str(error.value)
    assert len(error.value.faults) == 1
    assert len(error.value.faults[0]) < len(str(file)) + 400


def test_tags_that_fit_and_merges_of_several_are_read(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("a: !!str 5\nb: !!int 7\nc: !!float 1\nd: !!bool true\ne: ! x\nf: {<<: [{y: 1}, {y: 2, z: 3}]}\n")
    assert read_document(str(file)).values == {
        "a": "5", "b": 7, "c": 1.0, "d": True, "e": "x", "f": {"y": 1, "z": 3},
    }  # fmt: skip


def test_only_plain_files_are_read(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, message in (
        (str(pipe), "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
        ("x" * 5_000, "cannot be read: File name too long"),
        ("a\0b", "no file's name"),
    ):
        with pytest.raises(RecipeError, match=message):
            read_document(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_other_encodings_are_refused(tmp_path, encoding):
    file = tmp_path / "x.yaml"
    file.write_bytes("é: 1\n".encode(encoding))
    with pytest.raises(RecipeError, match=r"not UTF-8 text|is not allowed"):
        read_document(str(file))
