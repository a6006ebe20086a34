"""One table for each peer: docs/import.md shows it, and each key stands in it once."""

from collections import Counter
from pathlib import Path

import pytest

from alignment.config.loading import library_keys, own_keys
from alignment.config.schema import STAGES
from alignment.importing.detecting import PEERS
from alignment.importing.tables import markdown

PAGE = (Path(__file__).parents[2] / "docs/import.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PEERS)
def test_the_page_shows_the_table(name):
    _, _, behind = PAGE.partition(f"<!-- table: {name} -->\n")
    assert behind.partition("\n<!-- end of the table -->")[0] == markdown(PEERS[name])


@pytest.mark.parametrize("name", PEERS)
def test_a_key_stands_once_and_names_keys_that_exist(name):
    table = PEERS[name].table
    assert [key for key, count in Counter(key.name for key in table).items() if count > 1] == []
    known = {key for cls in STAGES.values() for key in (*own_keys(cls), *library_keys(cls))}
    assert [key.name for key in table if key.ours and key.ours not in known] == []
    assert [key.name for key in table if key.fate != "translated" and len(key.note) < 12] == []
