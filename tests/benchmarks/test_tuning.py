"""The benchmark of tuning methods: its methods exist, and its table shows means and ranges."""

from alignment.config.methods import TUNING_METHODS
from benchmarks.tuning import METHODS, table


def test_every_method_exists():
    assert set(METHODS) <= set(TUNING_METHODS)


def test_a_row_shows_the_mean_and_the_range_over_seeds():
    run = {"method": "lora", "rate": 0.004, "trained": 0.25, "seconds": 0.1, "memory": 10.4, "file": 99.6}
    rows = [{**run, "loss": loss, "accuracy": 0.5} for loss in (1.0, 2.0, 3.0)]
    expected = "| `lora` | 0.004 | 25.00% | 2.000 [1.000, 3.000] | 50.0% | 0.100 | 10 | 100 |"
    assert table(rows).splitlines()[-1] == expected
