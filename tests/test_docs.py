"""The examples of docs/index.md and docs/formats.md are read as what they say they are."""

import json
import re
import textwrap
from pathlib import Path

from alignment.config.loading import check_recipe
from alignment.data import load_rankings, ranking_from_json
from alignment.data.rows import Pair
from tests.data import written

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page, language):
    text = (DOCS / page).read_text(encoding="utf-8")
    return [textwrap.dedent(block) for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]


def test_the_start_page_trains_on_its_preferences(tmp_path):
    (row,) = (json.loads(block) for block in blocks("index.md", "json"))
    (ranking,) = written.load(tmp_path, row, loader=load_rankings).rows
    assert ranking.responses == [row["chosen"], row["rejected"]]
    (recipe,) = blocks("index.md", "yaml")
    (tmp_path / "dpo.yaml").write_text(recipe)
    assert check_recipe(str(tmp_path / "dpo.yaml")).stage == "dpo"


def test_the_row_of_labels_is_one():
    row = json.loads(blocks("formats.md", "json")[0])
    (pair,) = ranking_from_json(row).pairs
    assert (pair.first, pair.second, pair.probability, pair.status) == (0, 1, 0.87, "ok")
    text = (DOCS / "formats.md").read_text(encoding="utf-8")
    for key in (*row, *row["pairs"][0], *row["pairs"][0]["verdicts"][0], *Pair.__slots__):
        assert re.search(rf"`(\w+\[\]\.)?{key}`", text), key


def test_the_row_of_a_preview_has_its_keys():
    found = json.loads(blocks("formats.md", "json")[1])
    assert found.keys() == {"rows", "skipped"}
    assert found["rows"][0].keys() == {"source", "layout", "segments"}
