"""docs/tuning.md shows the facts about the methods as the code has them."""

from pathlib import Path

from alignment.config.method_table import markdown

ROOT = Path(__file__).parents[2]


def test_the_documented_table_is_the_one_in_the_code():
    assert markdown() in (ROOT / "docs/tuning.md").read_text(encoding="utf-8"), (
        "write it: python -m alignment.config.method_table"
    )
