"""What `alignment run` says of the stage that runs."""

import io

import pytest
from rich.console import Console

from alignment.run import progress
from alignment.run.progress import Progress


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("sft 20/60 steps (33%), 3.0 s left", "sft 20/60 steps (33%), 3.0 s left"),
        ("sft: judged 2/9 questions (22%)", "sft: judged 2/9 questions (22%)"),
        ("sft2 20/60 steps (33%), 3.0 s left", "sft: sft2 20/60 steps (33%), 3.0 s left"),
    ],
)
def test_a_pipeline_repeats_its_stages_line_and_names_the_stage_once(monkeypatch, tmp_path, line, shown):
    (tmp_path / "log").write_text(f"{line}\nsomething else\n")
    said, now = io.StringIO(), [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress(Console(file=said), "sft", None, tmp_path / "log") as watched:
        for _ in range(3):
            now[0] += 40
            watched.tick()
    assert said.getvalue().splitlines()[1:] == [shown]  # the second time there is no news
