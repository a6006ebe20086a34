"""Single answers, found good or bad: what is asked, what is stored, and what training reads of it."""

import json

import pytest

from alignment.data import load_demonstrations, load_unpaired
from alignment.data.sampled import HASHES
from alignment.errors import AlignmentError, DataError
from reward.people import serve
from reward.people.annotation_queue import LabelRefused
from reward.people.items import Item, key_of, load_items, place_of
from reward.people.kept import Damaged, label_of
from reward.people.labels import rankings, rows_of
from tests.data import written
from tests.reward.people.questions import answer, item, open_queue

RECORD = {**dict.fromkeys(HASHES, "h"), "prompt_ids": [9], "response_ids": [[1, 0], [2], []]}
ROW = {
    "prompt": [{"role": "user", "content": "Q"}],
    "responses": ["a", "b", "  "],
    "pairs": [{"first": 0, "second": 1, "probability": 0.9, "status": "ok"}],
    "provenance": {
        "judge": "gpt", "desirable": [0.9, 0.1, None], "stopped": [True, False, True], "sampled_tokens": [RECORD],
    },
}  # fmt: skip


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_each_answer_with_a_text_is_an_item_without_the_judges_label(tmp_path):
    place = place_of(write(tmp_path / "x.jsonl", ROW), None, "thumbs")
    first, second = load_items(place, ask="thumbs")
    assert (first.responses, second.responses) == (["a"], ["b"])
    assert second.provenance == {"stopped": [False], "sampled_tokens": [{**RECORD, "response_ids": [[2]]}]}
    assert place.output == tmp_path / "x.thumbs.jsonl"
    empty = {"prompt": "Q", "responses": ["", " "], "pairs": []}
    with pytest.raises(DataError, match="there is nothing to judge; no answer has a text"):
        load_items(place_of(write(tmp_path / "y.jsonl", empty), None, "thumbs"), ask="thumbs")


@pytest.mark.parametrize("told", [{}, {"label": True}])
def test_answers_without_a_partner_are_items(tmp_path, told):
    asked = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "a"}], **told}
    (found,) = load_items(place_of(write(tmp_path / "x.jsonl", asked), None, "thumbs"), ask="thumbs")
    assert (found.prompt, found.responses, found.provenance) == ([{"role": "user", "content": "Q"}], ["a"], {})
    with pytest.raises(DataError, match="holds no comparisons of answers"):
        load_items(place_of(tmp_path / "x.jsonl", None), ask="rank")
    (tmp_path / "y.jsonl").write_text('{"text": "Once."}')
    with pytest.raises(DataError, match="the format text has no prompts"):
        load_items(place_of(tmp_path / "y.jsonl", None, "thumbs"), ask="thumbs")


def test_verdicts_become_rows_that_training_reads(tmp_path):
    items = load_items(
        place_of(write(tmp_path / "x.jsonl", ROW, {**ROW, "responses": ["c", "d", "e"]}), None), ask="thumbs"
    )
    queue, store = open_queue(tmp_path / "s", items)
    said = {"a": {"ranks": [1]}, "b": {"ranks": [2]}, "c": "abstain", "d": "skipped", "e": {"ranks": [1]}}
    for _ in items:
        view = queue.next("Anna")
        answer(queue, "Anna", view, said[view["answers"][0]])
    taken_back = queue.undo("Anna")
    answer(queue, "Anna", taken_back, said[taken_back["answers"][0]])
    rows = rows_of("thumbs", store.labels(), store.items())
    assert {row["completion"]: row["label"] for row in rows} == {"a": True, "b": False, "e": True}
    assert {row["provenance"]["annotator"] for row in rows} == {"Anna"}
    assert rankings(store.labels(), store.items()) == []  # none of a ranking's rows
    found = written.load(tmp_path, *rows, loader=load_unpaired).rows
    assert {one.responses[0]: one.desirable for one in found} == {"a": (1.0,), "b": (0.0,), "e": (1.0,)}
    kept = {one.responses[0]: one.provenance for one in found}
    assert kept["b"] == {"stopped": [False], "sampled_tokens": [{**RECORD, "response_ids": [[2]]}]}
    imitated = written.load(tmp_path, *rows, loader=load_demonstrations).rows
    assert {one.completion for one in imitated} == {"a", "e"}
    assert next(one for one in imitated if one.completion == "a").sampled.stopped(0)


@pytest.mark.parametrize("verdict", [{"ranks": [3]}, {"ranks": [0]}, {"ranks": [1, 2]}, {"ranks": [True]}, "good"])
def test_a_verdict_that_is_neither_good_nor_bad_is_refused(tmp_path, verdict):
    queue, store = open_queue(tmp_path / "s", [item(0, ["a"])])
    with pytest.raises(LabelRefused, match=r"from 1 to 2|the verdict must be"):
        answer(queue, "Anna", queue.next("Anna"), verdict)
    assert store.labels() == []


@pytest.mark.parametrize(("status", "ranks"), [("ok", "[3]"), ("tie", "[1]"), ("ok", "[1, 2]"), ("abstain", "[1]")])
def test_a_damaged_row_is_found(status, ranks):
    asked = Item(key_of("Q", ["a"]), "Q", ["a"], {})
    with pytest.raises(Damaged):
        label_of((1, "Anna", asked.key, status, ranks, "[0]", "", 1.0, 1.0), {asked.key: asked})


def test_each_kind_of_label_has_its_file(tmp_path):
    source = write(tmp_path / "x.jsonl", ROW)
    store = place_of(source, None).store
    for ask, verdict in (("rank", {"ranks": [1, 2, 3]}), ("thumbs", {"ranks": [2]})):
        queue, opened = open_queue(store, load_items(place_of(source, None), ask=ask, limit=1))
        answer(queue, "Anna", queue.next("Anna"), verdict)
        opened.close()
    told = []
    for ask in ("rank", "thumbs"):
        serve.export(source, None, told.append, ask=ask)
    assert len((tmp_path / "x.people.jsonl").read_text().splitlines()) == 1
    (row,) = map(json.loads, (tmp_path / "x.thumbs.jsonl").read_text().splitlines())
    assert (row["completion"], row["label"]) == ("a", False)
    assert [line.rpartition("/")[2] for line in told] == [
        "x.people.jsonl: 1 labels of 1 people",
        "x.thumbs.jsonl: 1 labels of 1 people",
    ]


def test_without_a_thumb_nothing_is_exported(tmp_path):
    source = write(tmp_path / "x.jsonl", ROW)
    queue, store = open_queue(place_of(source, None).store, load_items(place_of(source, None), ask="rank"))
    answer(queue, "Anna", queue.next("Anna"), {"ranks": [1, 2, 3]})
    store.close()
    with pytest.raises(AlignmentError, match="has no label of a person"):
        serve.export(source, None, print, ask="thumbs")
