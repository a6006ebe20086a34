"""The page of a run shows what the steps did, and nothing of the data is taken for HTML."""

import re
import shutil
import subprocess

import pytest

from alignment.data.prepare.step import Step
from alignment.prepare.page import bounds, bucket
from tests.prepare.running import Run, prepare

ROWS = [
    {
        "prompt": f"Was ist die Antwort auf die Frage {n}?",
        "completion": "<script>alert(1)</script> gut  \nso " + "w " * n,
    }
    for n in range(40)
]
LENGTH = {"kind": "length", "maximum": 30, "name": "not too long"}
STEPS = ({"kind": "clean"}, LENGTH, {"kind": "language", "on": "prompt"}, {"kind": "split"})


def page_of(run: Run) -> str:
    return re.sub(r"\s+", " ", (run.folder / "prepare.html").read_text())


def test_the_page_shows_counts_lengths_languages_and_examples(tmp_path):
    page = page_of(prepare(tmp_path, ROWS, *STEPS))
    assert "<span>40 rows read</span><span>28 rows written</span><span>layout prompt_completion</span>" in page
    assert "2 · not too long</a><small> length</small>" in page
    assert "<td>40</td><td>12</td><td>0</td><td>28</td>" in page
    assert ">de</span>" in page
    assert '<span class="count" role="cell">12</span>' in page
    assert "answer above 30 words: 31 words<small>" in page
    assert '<mark class="old">  \n</mark>' in (tmp_path / "run/prepare.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;alert" in page


def test_texts_that_are_not_recorded_are_not_on_the_page(tmp_path):
    page = page_of(prepare(tmp_path, ROWS, *STEPS, record_texts=False))
    assert "alert" not in page
    assert "record_texts is false" in page


class Clusters(Step):
    LOOKS = True

    def apply(self, row):
        return row

    def findings(self):
        found = [{"size": 7 - n, "texts": ["<b>one</b>", "two"], "kept": f"f:{n}"} for n in range(2)]
        return {"clusters": found, "pairs": 1234, "similarity": {"mean": 0.81}}


def test_clusters_and_other_findings_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("alignment.data.prepare.sample.build", lambda entry, seed: Clusters())
    page = page_of(prepare(tmp_path, ROWS, {"kind": "sample", "share": 1.0}))
    assert page.index("<b>7 rows</b><small>kept: f:0</small>") < page.index("<b>6 rows</b>")
    assert "&lt;b&gt;one&lt;/b&gt;" in page
    assert "<dt>pairs</dt><dd>1,234</dd><dt>similarity · mean</dt><dd>0.81</dd>" in page


def test_buckets_hold_the_lengths_that_their_labels_name():
    for words in (0, 1, 2, 3, 4, 7, 8, 1000):
        low, _, high = bounds(bucket(words)).replace(",", "").partition("–")
        assert int(low) <= words <= int(high or low)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_a_browser_draws_the_page(tmp_path):
    run = prepare(tmp_path, ROWS, *STEPS)
    shot = tmp_path / "page.png"
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1200,2000",
        f"--screenshot={shot}",
    ]
    subprocess.run([*command, (run.folder / "prepare.html").as_uri()], check=True, capture_output=True, timeout=60)
    assert shot.stat().st_size > 20_000
