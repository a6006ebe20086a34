"""A run on the workers of Ray gives the bytes of a run in one process."""

import sys

import pytest

from alignment.data.prepare.step import StepError
from benchmarks import planted
from tests.prepare.running import SHARED, prepare

ROWS = [{"prompt": "q", "completion": "a"}]


def test_ray_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.data", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(StepError, match=r"pip install 'alignment-stack\[ray\]'"):
        prepare(tmp_path, ROWS, {"kind": "clean"}, engine="ray")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray leaves sockets and files to the interpreter's end
def test_two_workers_of_ray_give_the_same_bytes(tmp_path, monkeypatch):
    pytest.importorskip("ray.data")
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    corpus = planted.texts_of([SHARED / "reviews" / "sentence_polarity_10662.jsonl"])
    data = tmp_path / "planted.jsonl"
    planted.write(data, corpus, rows=2500, similarity=0.8, seed=0)
    benchmark = tmp_path / "benchmark.jsonl"
    benchmark.write_text("".join(data.read_text().splitlines(keepends=True)[:20]))
    steps = [
        {"kind": "clean", "html": True},
        {"kind": "exact_duplicates"},
        {"kind": "near_duplicates"},
        {"kind": "overlap", "against": [{"path": str(benchmark)}]},
    ]
    found = []
    for keys in ({}, {"engine": "ray", "num_proc": 2}):
        run = prepare(tmp_path, data, *steps, overwrite=True, **keys)
        found.append([(run.folder / name).read_bytes() for name in ("train.jsonl", "dropped.jsonl", "prepare.json")])
    assert found[0] == found[1]
    assert len(run.dropped) > 100
