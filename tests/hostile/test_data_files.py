"""Files of every kind that are damaged, or hold what JSON does not have."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.data import load_rankings
from tests.hostile.reading import EXAMPLES, load_all, write
from tests.hostile.rows import GOOD, spoiled, text_of

pytestmark = pytest.mark.hostile


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


@settings(max_examples=EXAMPLES)
@given(spoiled(names=("preference", "prompt_completion", "kto", "alpaca", "ranking", "llmbar", "messages")), st.data())
def test_rows_in_a_csv(folder, made, data):
    _, row = made
    cells = {key: value if isinstance(value, str) else text_of(value) for key, value in row.items()}
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=data.draw(st.sampled_from(["\n", "\r\n", "\r"])))
    writer.writerow(cells)
    writer.writerow(cells.values())
    content = text.getvalue().encode("utf-8", "surrogatepass")
    cut = data.draw(st.integers(0, len(content)))
    content = data.draw(
        st.sampled_from(
            [content, content[:cut], content[:cut] + b"\0" + content[cut:], content[:cut] + b"\xff" + content[cut:],
             content[:cut] + b'"' + content[cut:], content[:cut] + b"," + content[cut:], b"\xef\xbb\xbf" + content,
             content.decode("utf-8", "replace").encode("utf-16")]
        )
    )  # fmt: skip
    load_all(write(folder, "g.csv", content))


@settings(max_examples=EXAMPLES)
@given(spoiled())
def test_rows_in_parquet(folder, made):
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.Table.from_pylist([made[1], GOOD[made[0]]])
        pyarrow.parquet.write_table(table, folder / "h.parquet")
    except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError, TypeError, ValueError):
        return  # Parquet has no place for it
    load_all(folder / "h.parquet")


def columns():
    import datetime
    import decimal

    import pyarrow as pa

    bad = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xff\xfe")]
    )
    return {
        "bad UTF-8": bad,
        "binary": pa.array([b"\xff", b"b"]),
        "decimal": pa.array([decimal.Decimal("1.50"), decimal.Decimal("12345678901234567890.12")]),
        "dictionary": pa.array(["a", "b"]).dictionary_encode(),
        "null": pa.nulls(2),
        "float": pa.array([float("nan"), float("inf")]),
        "time zone": pa.array([0, 1], pa.timestamp("us", tz="Mars/Olympus")),
        "odd offset": pa.array([0, 1], pa.timestamp("s", tz="+25:99")),
        "far date": pa.array([2**48, -(2**48)], pa.timestamp("s")),
        "nanoseconds": pa.array([1, 2], pa.timestamp("ns")),
        "date": pa.array([datetime.date(2020, 1, 1)] * 2),
        "duration": pa.array([1, 2], pa.duration("s")),
        "map": pa.array([[("a", 1)], [("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64())),
        "struct": pa.array([{"role": "user", "content": "x"}, None]),
        "nested": pa.array([[[["a"]]], None]),
        "uint64": pa.array([2**64 - 1, 0], pa.uint64()),
        "large string": pa.array(["a", "b"], pa.large_string()),
        "half": pa.array([1.5, 2.5]).cast(pa.float16()) if hasattr(pa, "float16") else pa.array([1, 2]),
    }  # fmt: skip


CONTENT = ("binary", "map", "struct")


@pytest.mark.parametrize("kind", columns())
@pytest.mark.parametrize("key", ["prompt", "chosen", "probability", "margin", "extra", "provenance", "tools"])
def test_columns_that_json_does_not_have(tmp_path, kind, key):
    import pyarrow as pa
    import pyarrow.parquet

    column = columns()[kind]
    texts = {"prompt": ["p", "q"], "chosen": ["a", "b"], "rejected": ["c", "d"]}
    table = pa.table({**{name: pa.array(values) for name, values in texts.items()}, key: column})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found = load_all(tmp_path / "a.parquet")
    if key == "extra" and kind in CONTENT:
        assert not found.get((load_rankings, "stop")), "text, objects and bytes may be content"
    elif key == "extra":
        assert len(found[load_rankings, "stop"].rows) == 2, "a column that nobody looks at spoils nothing"


@settings(max_examples=EXAMPLES)
@given(st.sampled_from(["parquet", "jsonl.gz", "json", "jsonl", "csv", "txt"]), st.data())
def test_files_that_are_cut_or_changed_in_one_place(folder, kind, data):
    import pyarrow
    import pyarrow.parquet

    rows = [{"prompt": f"p{n}", "chosen": "a" * n, "rejected": "b"} for n in range(1, 40)]
    lines = "".join(text_of(row) + "\n" for row in rows).encode()
    file = folder / f"i.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        content = file.read_bytes()
    else:
        content = {"jsonl.gz": gzip.compress(lines, mtime=0), "json": f"{json.dumps(rows)}".encode()}.get(kind, lines)
    place = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[place] ^= data.draw(st.integers(1, 255))
    file.write_bytes(
        data.draw(st.sampled_from([content[:place], bytes(changed), content + content[:place], content[place:]]))
    )
    load_all(file)


@settings(max_examples=EXAMPLES)
@given(st.binary(max_size=300), st.sampled_from(["jsonl", "json", "csv", "txt", "parquet", "jsonl.gz"]))
def test_files_of_any_bytes(folder, content, kind):
    load_all(write(folder, f"j.{kind}", content))
