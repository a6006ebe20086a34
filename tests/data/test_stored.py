"""Files that are damaged, unfold without end, or are something else."""

import gzip
import os
import tracemalloc
import zlib

import pytest

from alignment.data import stored
from alignment.data.readers import read_file
from alignment.errors import DataError

ROW = b'{"prompt": "a", "completion": "b"}\n'


def write(path, content):
    path.write_bytes(content)
    return path


def message_of(path):
    with pytest.raises(DataError) as caught:
        read_file(path)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


def bomb(path, start, block, blocks):
    """A gzip file of many equal blocks, a thousandth of what it holds."""
    packed = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        file.write(packed.compress(start))
        for _ in range(blocks):
            file.write(packed.compress(block))
        file.write(packed.flush())
    return path


def test_a_bomb_is_refused_in_bounded_memory(tmp_path):
    path = bomb(tmp_path / "a.jsonl.gz", b"", bytes(2**20), 512)
    tracemalloc.start()
    with pytest.raises(DataError):
        read_file(path)
    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()


def test_a_decompression_bomb_is_reported(tmp_path):
    path = bomb(tmp_path / "a.jsonl.gz", b"", ROW * 30_000, 100)
    assert "unfolds to more than 100 times its size" in message_of(path)


def test_repeated_rows_of_a_usual_size_are_not_bomb(tmp_path):
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(ROW * 100_000))
    assert len(read_file(path).rows) == 100_000


def test_a_sparse_file_is_refused_without_reading_it_into_memory(tmp_path):
    for name in ("a.jsonl", "a.csv", "a.txt"):
        path = tmp_path / name
        path.touch()
        os.truncate(path, 2**32)
        tracemalloc.start()
        with pytest.raises(DataError):
            read_file(path)
        assert tracemalloc.get_traced_memory()[1] < 2**28
        tracemalloc.stop()


@pytest.mark.parametrize("cut", [1, 5, 20, 200])
def test_a_gzip_file_that_breaks_off_names_the_line(tmp_path, cut):
    rows = b"".join(b'{"text": "%d %s"}\n' % (n, os.urandom(20).hex().encode()) for n in range(1000))
    whole = gzip.compress(rows)
    text = message_of(write(tmp_path / "a.jsonl.gz", whole[:-cut]))
    assert "is not a whole gzip file: " in text
    assert "(line " in text


def test_damage_inside_a_gzip_file_is_named(tmp_path):
    whole = bytearray(gzip.compress(os.urandom(2000).hex().encode() + b"\n"))
    for place in (0, 2, 12, 300, len(whole) - 6, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        assert "a.jsonl.gz" in message_of(write(tmp_path / "a.jsonl.gz", bytes(damaged)))


def test_gzip_files_joined_together_are_one(tmp_path):
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(ROW) + gzip.compress(ROW))
    assert len(read_file(path).rows) == 2


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ('{"text": "a"}\n'.encode("utf-16"), "is UTF-16, not text in UTF-8"),
        ('{"text": "a"}\n'.encode("utf-16-le"), "is UTF-16 or binary"),
        ('{"text": "a"}\n'.encode("utf-16-be"), "is UTF-16 or binary"),
        (gzip.compress(ROW, mtime=0), "is gzip; its name must end in .gz"),
        (b"PAR1" + bytes(30), "is Parquet, not text"),
        (b"PK\x03\x04" + bytes(30), "is a zip archive"),
        (b"SQLite format 3\0" + bytes(30), "is a SQLite file"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_another_kind_of_file_is_named(tmp_path, name, content, what):
    assert what in message_of(write(tmp_path / name, content))


def test_a_pipe_and_a_device_are_refused_without_reading(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    assert "is not a regular file" in message_of(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to("/dev/zero")
    assert "is not a regular file" in message_of(tmp_path / "b.jsonl")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_row_above_the_limit_is_a_bad_row(tmp_path, monkeypatch, name):
    long = b'{"text": "' + b"a" * (stored.ROW_BYTES + 1) + b'"}\n'
    rows = read_file(write(tmp_path / name, ROW + long + ROW)).rows
    assert [row.fault is None for row in rows] == [True, False, True]
    assert "16,777,216" in rows[1].fault
    assert [row.where.rpartition(":")[2] for row in rows] == ["1", "2", "3"]


def test_a_line_that_is_longer_than_a_chunk_is_read_whole(tmp_path):
    text = "ä" * (3 * 2**20) + "\u2028"
    content = f'{{"text": "{text}"}}\n'.encode() * 2
    assert [row.value for row in read_file(write(tmp_path / "a.jsonl", content)).rows] == [{"text": text}] * 2


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_end_of_a_row_of_a_csv(tmp_path, end):
    text = end.join(["text,x", '"a', 'b",1', "c\u2028\x85\x1c\x0bd,2", ""])
    rows = read_file(write(tmp_path / "a.csv", text.encode())).rows
    assert [row.value for row in rows] == [{"text": f"a{end}b", "x": "1"}, {"text": "c\u2028\x85\x1c\x0bd", "x": "2"}]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"prompt,completion,prompt\na,b,c\n", "a.csv:1: the column 'prompt' stands in the header twice"),
        (b"text\n\xff\n", "a.csv:2: invalid UTF-8: byte 0xff"),
        (b'text\n"a"b\n', "a.csv:2: invalid CSV"),
        (b'text\n"a\n' + b"b\n" * 9, "invalid CSV: unexpected end of data"),
    ],
)
def test_a_csv_that_cannot_be_read_names_its_line(tmp_path, content, what):
    assert what in message_of(write(tmp_path / "a.csv", content))


def test_bad_rows_of_a_csv_leave_the_others(tmp_path):
    deep = "[" * 500 + "]" * 500
    content = f'text,messages,\na,"{deep}",\n\0,b,\nc,d\ne,"[{{""a"":1,""a"":2}}]",\n'
    rows = read_file(write(tmp_path / "a.csv", content.encode())).rows
    assert [row.fault for row in rows] == [
        None,
        "the cell 'text' holds a NUL byte, as no text does",
        "2 cells where the header has 3",
        None,
    ]
    assert "128 lists" in rows[0].value["messages"].reason
    assert "twice" in rows[3].value["messages"].reason


def test_a_file_is_hashed_as_stored(tmp_path):
    import hashlib

    for name, content in (("a.jsonl.gz", gzip.compress(ROW)), ("a.json", b"[" + ROW + b"]"), ("a.txt", b"x\n")):
        path = write(tmp_path / name, content)
        assert read_file(path).sha256 == hashlib.sha256(content).hexdigest()


def test_json_arrays_name_the_row_that_breaks_a_limit(tmp_path):
    content = b'[{"text": "a"},\n{"text": "a", "text": "b"},\n{"n": NaN},\n{"text": "\\ud800"}]'
    rows = read_file(write(tmp_path / "a.json", content)).rows
    assert [(row.where[-1], row.fault) for row in rows] == [
        ("1", None),
        ("2", "the value has the key 'text' twice; take one out"),
        ("3", "'n' is NaN, which is not a finite number"),
        ("4", "'text' holds half of a surrogate pair at position 0, which is not a character"),
    ]


def test_a_parquet_file_that_unfolds_without_end_is_refused(tmp_path):
    import pyarrow
    import pyarrow.parquet

    one = pyarrow.array(["x" * 100_000])
    repeated = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 100_000, pyarrow.int32()), one)
    tables = {
        "dictionary": (pyarrow.table({"text": repeated}), {}),
        "compressed": (
            pyarrow.table({"text": ["x" * 1_000_000] * 400}),
            {"compression": "zstd", "use_dictionary": False},
        ),
    }
    for name, (table, how) in tables.items():
        path = tmp_path / f"{name}.parquet"
        pyarrow.parquet.write_table(table, path, **how)
        tracemalloc.start()
        assert "unfolds to more than 100 times its size" in message_of(path)
        assert tracemalloc.get_traced_memory()[1] < 2**29
        tracemalloc.stop()


def test_a_parquet_file_with_a_column_twice_is_refused(tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert "the column 'text' stands there twice" in message_of(tmp_path / "a.parquet")


def test_utf_32_is_named(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_bytes('{"text": "a"}\n'.encode("utf-32"))
    with pytest.raises(DataError, match=r"d.jsonl is UTF-32, not text in UTF-8"):
        read_file(path)


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.csv"])
def test_pointers_of_git_lfs_and_pages_are_named(tmp_path, name):
    for content, words in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>login</html>", "is an HTML page"),
        (b"\xef\xbb\xbf\n<html>", "is an HTML page"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=words):
            read_file(tmp_path / name)
