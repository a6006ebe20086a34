"""A damaged log holds no run up, and none of it is lost."""

import json

import pytest

from alignment.run.callbacks import MetricsWriter
from alignment.run.files import read_jsonl
from alignment.run.repair import readable_rows

ROWS = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}, {"step": 3, "loss": 0.125}]
LINES = [json.dumps(row).encode() + b"\n" for row in ROWS]


def fits(row):
    return isinstance(row.get("step"), int)


@pytest.mark.parametrize("last", [b"", b'{"step": 4, "lo', b"\xff\xfe", b"\0" * 99])
def test_a_last_line_cut_off_is_left_out_without_a_word(tmp_path, capsys, last):
    (tmp_path / "log").write_bytes(b"".join(LINES) + last)
    assert readable_rows(tmp_path / "log", fits) == ROWS
    assert capsys.readouterr().err == ""
    assert [file.name for file in tmp_path.iterdir()] == ["log"]


@pytest.mark.parametrize(
    "line", [b"{\n", b"\xff\n", b"[1]\n", b'{"loss": 1}\n', b'{"step": "1"}\n', b"\0\0\n", b"[" * 9999 + b"\n"]
)
def test_a_damaged_line_is_named_and_the_file_kept(tmp_path, capsys, line):
    content = LINES[0] + line + LINES[1] + line + LINES[2]
    (tmp_path / "log").write_bytes(content)
    assert readable_rows(tmp_path / "log", fits) == ROWS
    said = f"{tmp_path}/log:2: damaged and 1 more; left out; the file is kept as log.damaged\n"
    assert capsys.readouterr().err == said
    assert (tmp_path / "log.damaged").read_bytes() == content


def test_no_file_has_no_rows(tmp_path):
    assert readable_rows(tmp_path / "log", fits) == []
    assert readable_rows(tmp_path, fits) == []


@pytest.mark.parametrize(
    "content",
    [
        LINES[1] + LINES[2],  # the first line is missing
        b"",
        LINES[0] + b"\xff\n" + LINES[2],
        LINES[0] + LINES[1][:9],
        LINES[0] + LINES[1].replace(b"0.25", b"0.26") + LINES[2],
    ],
)
def test_metrics_are_written_again_from_the_checkpoint_with_a_word(tmp_path, capsys, content):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(content)
    history = [{"loss": row["loss"], "step": row["step"]} for row in ROWS[:2]]
    state = type("State", (), {"is_world_process_zero": True, "global_step": 2, "log_history": history})()
    MetricsWriter(file).on_train_begin(None, state, None)
    assert read_jsonl(file) == ROWS[:2]
    assert "written again from the checkpoint" in capsys.readouterr().err
