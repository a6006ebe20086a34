import errno
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from alignment.errors import AlignmentError
from alignment.policy import weights
from alignment.policy.weights import sampled_hash
from alignment.run import files
from alignment.run.files import append_jsonl, naming_the_disk, read_jsonl, write_atomic


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(AlignmentError, match=r"a\.txt: no room left on the disk"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_pipe_is_written_into_and_not_replaced(tmp_path):
    """As root, a rename would put a file in the place of /dev/null."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        write_atomic(pipe, "text")
        assert read.result(10) == b"text"
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/dev/full", "/dev/null"])
def test_the_systems_devices_are_never_renamed_over(path, monkeypatch):
    def refuse(*_):
        raise AssertionError("a device would have been replaced")

    monkeypatch.setattr(files.os, "replace", refuse)
    if path == "/dev/full" and os.path.exists(path):
        with pytest.raises(AlignmentError, match="/dev/full: no room left on the disk"):
            write_atomic(path, "text")
    else:
        write_atomic(path, "")


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a folder in memory")
def test_a_file_in_memory_is_replaced_like_any_other():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        for text in ("first", "second"):
            write_atomic(Path(folder) / "file.json", text)
        assert (Path(folder) / "file.json").read_text() == "second"


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AlignmentError, match="choose another path"):
        write_atomic(tmp_path / "file" / "below.txt", "x")


def test_a_path_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone" / "away")
    with pytest.raises(AlignmentError, match=r"nowhere: (No such file or directory|File exists); choose another path"):
        with naming_the_disk(tmp_path / "nowhere"):
            os.mkdir(tmp_path / "nowhere" / "below")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_in_torch_is_reported():
    with pytest.raises(AlignmentError, match="no room left on the disk"), naming_the_disk(Path("/dev/full")):
        torch.save({"weights": torch.zeros(1_000_000)}, "/dev/full")


def test_a_last_line_cut_off_is_left_out_but_damage_in_the_middle_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, {"step": 1})
    with path.open("a") as file:
        file.write('{"step": 2')
    assert read_jsonl(path) == [{"step": 1}]
    path.write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(AlignmentError, match=r"rows\.jsonl:1: not JSON"):
        read_jsonl(path)


def test_sampled_hash_sees_size_ends_and_every_sampled_block(tmp_path):
    big, block = tmp_path / "big", weights.BLOCK_BYTES
    size = 2 * weights.SAMPLED_BLOCKS * block
    big.write_bytes(bytes(size))
    zero = sampled_hash(big)
    last_of_third_block = 2 * (size - block) // (weights.SAMPLED_BLOCKS - 1) + block - 1
    for offset in (0, size - 1, last_of_third_block):
        content = bytearray(size)
        content[offset] = 1
        big.write_bytes(content)
        assert sampled_hash(big) != zero
    big.write_bytes(bytes(size + 1))
    assert sampled_hash(big) != zero
