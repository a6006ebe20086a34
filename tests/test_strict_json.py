import datetime
import decimal
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.errors import AlignmentError, JsonError
from alignment.strict_json import FOREIGN, OURS, Limits, check, parse, shown, spelled

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**99), 10**99) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)  # fmt: skip


@given(JSON, st.booleans())
def test_json_of_the_standard_library_is_read_unchanged(value, escaped):
    text = json.dumps(value, ensure_ascii=escaped)
    assert parse(text) == parse(text.encode()) == json.loads(text)
    check(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', r"the value has the key 'a' twice; take one out"),
        ('{"p": [{"a": 1, "b": 2, "\\u0061": 3}]}', r"'p\[0\]' has the key 'a' twice"),
        ('{"ranks": [1, ' + "9" * 101 + "]}", r"'ranks\[1\]' is an integer of 101 digits; the limit is 100"),
        ('{"ranks": -' + "9" * 5000 + "}", r"'ranks' is an integer of 5,001 digits"),
        ('{"a": NaN}', "'a' is NaN, which is not a finite number"),
        ('{"a": {"b": -Infinity}}', r"'a\.b' is -Infinity, which is not a finite number"),
        ('{"score": 1e400}', "'score' is 1e400, which no float can hold"),
        ('{"score": -0.01e-400}', "'score' is -0.01e-400, which a float holds as zero"),
        ('{"prompt": "\\ud800"}', "'prompt' holds half of a surrogate pair at position 0"),
        ('{"r": ["ok", "x\\uDFFF"]}', r"'r\[1\]' holds half of a surrogate pair at position 1"),
        ('{"\\udc00": 1}', r"the key '\\udc00', which holds half of a surrogate pair"),
        ('{"a": 1', r"invalid JSON: Expecting ',' delimiter: line 1 column 8 \(char 7\)"),
        ("[NaN, oops", r"invalid JSON: Expecting value: line 1 column 7 \(char 6\)"),
        ("", "invalid JSON: Expecting value: line 1 column 1"),
        ('{"a": 1}\n x', "invalid JSON: Extra data: line 2 column 2"),
        ("[1]\u2028", "invalid JSON: Extra data"),
        ("[" * 129 + "]" * 129, "holds more than 128 lists and objects"),
        ('{"a":' * 200 + "1" + "}" * 200, r"'a\.a\.a' holds more than 128"),
        ("[" * 100_000, "invalid JSON"),
        ('[{"a": 1, "a": 2}, ' + "[" * 100_000, "invalid JSON"),
    ],
)
def test_a_broken_limit_is_reported_with_its_key_in_one_line(text, message):
    with pytest.raises(JsonError, match=message) as caught:
        parse(text)
    assert len(str(caught.value).splitlines()) == 1
    assert isinstance(caught.value, AlignmentError)
    assert isinstance(caught.value, ValueError)


def test_bytes_that_are_not_utf8_are_named_and_no_other_encoding_is_guessed():
    with pytest.raises(JsonError, match="invalid UTF-8: byte 0xff at position 6"):
        parse(b'{"a":"\xff"}')
    with pytest.raises(JsonError):
        parse('{"a": 1}'.encode("utf-16"))


def test_a_pair_of_surrogates_is_one_character():
    assert parse('{"a": "\\ud83d\\ude00"}') == {"a": "😀"}


def test_our_own_files_may_hold_nan_and_halves_of_surrogate_pairs_and_nothing_else():
    assert parse('{"answer": "\\ud800"}', OURS) == {"answer": "\ud800"}
    assert parse("Infinity", OURS) == float("inf")
    with pytest.raises(JsonError, match="twice"):
        parse('{"a": 1, "a": 1}', OURS)
    with pytest.raises(JsonError, match="digits"):
        parse("1" * 200, OURS)


def test_a_text_past_the_limit_is_refused_before_it_is_parsed():
    text = "[" + "1," * 1_000_000 + "1]"
    tracemalloc.start()
    with pytest.raises(JsonError, match="has 2,000,003 characters; the limit is 1,000"):
        parse(text, Limits(size=1000))
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_many_keys_with_one_twice_are_refused_in_linear_time():
    text = "{" + "".join(f'"{key}": 1, ' for key in range(100_000)) + '"99999": 1}'
    with pytest.raises(JsonError, match="'99999' twice"):
        parse(text)


@pytest.mark.parametrize(
    "value", [b"x", decimal.Decimal(1), datetime.datetime(2020, 1, 1), {1: 2}, {"a": [object()]}, {1.5}]
)
def test_a_value_of_no_type_of_json_is_named(value):
    with pytest.raises(JsonError, match=r"of the type|not text"):
        check(value)


def test_values_of_libraries_are_held_to_the_same_limits():
    for value in (float("nan"), [float("inf")], 10**100, "\ud800", {"\ud800": 1}):
        with pytest.raises(JsonError):
            check(value, FOREIGN)
    deep: list = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(JsonError, match="128"):
        check(deep)


@given(st.text() | st.integers() | st.lists(st.text()) | st.binary())
def test_quotations_in_messages_are_one_short_printable_line(value):
    text = shown(value)
    assert len(text) <= 61
    assert text.isprintable()


def test_an_integer_that_python_does_not_write_can_be_quoted():
    assert shown(10**5000) == "an integer of thousands of digits"
    assert spelled(("a\nb", 0, "c")) == r"'a\nb[0].c'"
