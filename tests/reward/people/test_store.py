"""A store that is damaged, changed by hand, read-only or full: one line that names the row, and nothing is lost."""

import json
import sqlite3
from contextlib import closing

import pytest
from starlette.testclient import TestClient

from alignment.errors import AlignmentError, DataError
from reward.people.labels import rankings
from reward.people.store import PeopleStore
from tests.reward.people.questions import answer, by_text, item, open_queue
from tests.reward.people.test_app import HOST, OWN, Page, label_of

LABELS = {
    "ranks": ["'nope'", "'[1, 2]'", "'[1, 2, 9]'", "'[1, 2, true]'", "'[\"a\", 1, 2]'", "'[1e400, 1, 2]'", "'1'",
              "NULL", "x'ff'", "'[1,1,1]'"],
    "shown": ["'null'", "'[0, 1]'", "'[0, 1, 7]'", "'[0, 0, 1]'", "'x'", "'" + "[" * 50_000 + "'", "3"],
    "status": ["'best'", "3", "''", "'tie'", "'skipped'"],
    "seconds": ["'soon'", "9e999", "-1", "x'00'"],
    "labelled_at": ["'today'", "9e999"],
    "annotator": ["x'ff'", "'a' || char(10) || 'b'"],
    "guidelines": ["3.5e0 || x'ff'"],
    "item": ["'unknown'", "x'00'"],
}  # fmt: skip
ITEMS = ["'{nope'", "'[]'", "'null'", "x'ff'", "'" + "[" * 50_000 + "'", "cast(x'ff' as text)"]


@pytest.fixture
def kept(tmp_path):
    """The path of a store with two items and one label."""
    path = tmp_path / "calls.sqlite"
    queue, store = open_queue(path, [item(0), item(1)])
    view = queue.next("anna")
    answer(queue, "anna", view, by_text(view, "abc"))
    store.close()
    return path


def change(path, *statements):
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def read(path):
    with PeopleStore(path) as store:
        return rankings(store.labels(), store.items())


def test_an_undamaged_store_reads_back(kept):
    (row,) = read(kept)
    assert row.provenance["annotator"] == "anna"


@pytest.mark.parametrize(("column", "value"), [(column, value) for column in LABELS for value in LABELS[column]])
def test_a_damaged_label_is_named_in_one_line(kept, column, value):
    change(kept, f"UPDATE people SET {column} = {value}")
    with pytest.raises(DataError) as told:
        read(kept)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 500
    assert str(kept) in str(told.value)
    if "\\xff" not in str(told.value) and "UTF-8" not in str(told.value):
        assert "the row of people with id = 1 is damaged" in str(told.value)


@pytest.mark.parametrize("value", ITEMS)
def test_a_damaged_item_is_named_in_one_line(kept, value):
    change(kept, f"UPDATE people_items SET item = {value} WHERE rowid = 2")
    with pytest.raises(DataError, match=r"the row of people_items with rowid = 2 is damaged|UTF-8") as told:
        read(kept)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "changed", [{"prompt": "Other?"}, {"responses": ["x", "y", "z"]}, {"provenance": []}, {"responses": 3}, {"more": 1}]
)
def test_texts_that_were_changed_are_refused(kept, changed):
    """A label of other texts than those that were shown would be wrong."""
    text = {"prompt": "Question 0?", "responses": ["a0", "b0", "c0"], "provenance": {}} | changed
    change(kept, f"UPDATE people_items SET item = '{json.dumps(text)}'")
    with pytest.raises(DataError, match="is damaged"):
        read(kept)


@pytest.mark.parametrize("size", [50, 5000, 9000])
def test_a_file_that_was_cut_off_is_refused(kept, size):
    kept.write_bytes(kept.read_bytes()[:size])
    with pytest.raises(DataError, match="cannot be used as a store of labels"):
        read(kept)


def test_a_file_that_is_none_or_a_folder_is_refused(tmp_path):
    path = tmp_path / "calls.sqlite"
    path.write_bytes(b"hello" * 1000)
    with pytest.raises(DataError, match="file is not a database"):
        PeopleStore(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(AlignmentError, match="cannot be written"):
        PeopleStore(path)


@pytest.mark.parametrize("table", ["people", "people_items"])
def test_tables_of_another_make_are_refused(kept, table):
    change(kept, f"DROP TABLE {table}", f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, x)")
    with pytest.raises(DataError, match="no such column"):
        read(kept)


def test_a_full_disk_is_reported_to_the_page_and_kept_labels_stay(tmp_path):
    page = Page(tmp_path / "calls.sqlite", count=40)
    browser = page.entered()
    limit = "PRAGMA max_page_count"
    pages = page.store._connection.execute("PRAGMA page_count").fetchone()[0]
    page.store._connection.execute(f"{limit} = {pages}")
    person, taken = "a" * 60, 0
    while True:
        reply = browser.post("/api/label", json=label_of(browser, person), headers=OWN)
        if reply.status_code != 200:
            break
        taken += 1
    assert reply.status_code == 500
    assert "no room left on the disk" in reply.json()["error"]
    assert len(page.store.labels()) == taken < 40
    page.store._connection.execute(f"{limit} = 100000")
    assert browser.post("/api/label", json=label_of(browser, person), headers=OWN).status_code == 200
    assert len(page.store.labels()) == taken + 1
    page.store.close()


def test_a_read_only_store_is_reported(kept):
    with PeopleStore(kept) as store:
        store._connection.execute("PRAGMA query_only = 1")
        with pytest.raises(AlignmentError, match=r"cannot be written \(attempt to write a readonly database\)"):
            store.add_items([item(5)])


def test_a_preview_does_not_use_the_link_up(tmp_path):
    page = Page(tmp_path / "calls.sqlite")
    token = page.links[0][0]
    browser = TestClient(page.app, base_url=f"http://{HOST}")
    assert browser.head("/enter", params={"token": token}).status_code == 405
    assert browser.get("/enter", params={"token": token}).status_code == 200
    page.store.close()
