"""The table of all comparisons: its commands exist, and its lines have both figures, the ratio and the goal."""

import importlib.util
import json

import pytest

from benchmarks import table


def runs(work, speed, memory):
    return [{f"{work}_per_second": speed + more, "peak_rss_mib": memory} for more in (-1, 0, 5)]


@pytest.mark.parametrize("name", table.COMPARISONS)
def test_its_command_exists(name):
    (module, *_), _ = table.COMPARISONS[name]
    assert importlib.util.find_spec(f"benchmarks.{module}")


def test_each_result_gives_its_lines(tmp_path):
    of_pairs = {"pairs_per_second_ratio": 2.5, "pairs_per_cpu_second_ratio": 2.4, "peak_memory_ratio": 0.9, "goal": 2.0}
    stage = {"work": "pairs", "against": {"trl": of_pairs}}
    stage["runs"] = {"ours": runs("pairs", 25, 900.0), "trl": runs("pairs", 10, 1000.0)}
    tokenised = {"rows": 100_000, "load": 3.0, "tokenise": 84.4, "peak_mebibytes": 1432.0}
    results = {
        "stages": {"workload": "equal", "stages": {"rankings": stage}},
        "startup": {name: {"cpu_seconds": 0.25, "goal": 0.5} for name in ("help", "first_step")},
        "tokenising": [tokenised],
    }
    for name, found in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    assert table.table(tmp_path).splitlines()[2:] == [
        "| `rankings`, `equal`, TRL, pairs/s | 25 | 10 | 2.50 | 2.40 | ≥ 2 |",
        "| `rankings`, `equal`, TRL, peak MiB | 900 | 1,000 | 0.90 | – | ≤ 1 |",
        "| `alignment --help`, s of processor time | 0.25 | – | – | – | < 0.5 |",
        "| first step of SFT on stories260K, s of processor time | 0.25 | – | – | – | < 0.5 |",
        "| loading and tokenising 100,000 conversations, s of processor time | 87 | – | – | – | – |",
        "| the same, peak MiB | 1,432 | – | – | – | – |",
    ]


def test_an_unknown_comparison_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["table", "ppo"])
    with pytest.raises(SystemExit):
        table.main()
    assert "there is no comparison ppo; choose from ppo_equal" in capsys.readouterr().err
