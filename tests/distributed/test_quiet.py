"""Several processes: the first alone speaks and tracks."""

from collections import Counter
from pathlib import Path

import pytest

from alignment.meter import PROGRESS_LINE
from tests.distributed.stage import Stage, make_inputs, write_recipe
from tests.run.wandb_file import Kept

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]


def test_every_line_is_printed_once(tmp_path):
    make_inputs(tmp_path)
    argv = write_recipe(tmp_path, tmp_path / "run", report_to="wandb", total_episodes=16)
    stage = Stage(argv, tmp_path / "log", processes=2, WANDB_MODE="offline", WANDB_SILENT="true")
    assert stage.ends_within(240)
    first, second = (Path(f"{tmp_path}/log.{rank}").read_text().splitlines() for rank in range(2))
    assert any(PROGRESS_LINE.match(line) for line in first)
    # Only torch's own C++ may speak elsewhere: of sockets, before Python can ask it not to.
    assert [line for line in second if line.strip() and not line.startswith(("[W", "[Gloo]"))] == []
    assert [line for line, times in Counter(first).items() if times > 1 and PROGRESS_LINE.match(line)] == []
    assert len(Kept(tmp_path / "run").files) == 1
