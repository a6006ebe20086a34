"""Label Studio's JSON export: tasks of its templates for human preferences, and what of them becomes a comparison."""

import json

import pytest

from alignment.config.schema import DatasetEntry
from alignment.data.fields import BadRow
from alignment.data.keys import UnreadKey
from alignment.data.load import load_rankings
from alignment.data.recognition import named, recognise
from alignment.data.rows import Pair, SingleVerdict

PAIR = {"prompt": "The quick brown fox...", "answer1": "jumps over the lazy dog.", "answer2": "bags few lynx."}
ITEMS = {
    "prompt": "What caused the ancient library of Alexandria to be destroyed?",
    "items": [
        {"id": "llm_1", "title": "LLM 1", "body": "Wars led to library's ruin."},
        {"id": "llm_2", "title": "LLM 2", "body": "Library's end through various wars."},
        {"id": "llm_3", "title": "LLM 3", "body": "Ruin resulted from library wars."},
    ],
}


def annotation(person, *results, cancelled=False):
    return {
        "id": 1001, "completed_by": person, "result": list(results), "was_cancelled": cancelled, "ground_truth": False,
        "created_at": "2024-03-09T22:16:08.728353Z", "lead_time": 4.288, "task": 1,
    }  # fmt: skip


def selected(side, to_name="answer1,answer2"):
    return {"id": "Dx_aB91ISN", "type": "pairwise", "value": {"selected": side}, "origin": "manual",
            "to_name": to_name, "from_name": "comparison"}  # fmt: skip


def ranked(value):
    return {"id": "Dx_aB91ISN", "type": "ranker", "value": {"ranker": value}, "to_name": "answers", "from_name": "rank"}


def task(data, *annotations):
    return {
        "id": 1, "data": data, "annotations": list(annotations), "project": 83, "meta": {}, "drafts": [],
        "predictions": [{"model_version": "judge", "result": [selected("right")]}],
    }  # fmt: skip


def read(row):
    assert recognise(row, "x").name == "label_studio"
    return named("label_studio").read(row)


def test_a_choice_gives_one_row_for_each_person():
    note = {"type": "textarea", "value": {"text": ["hm"]}, "from_name": "note", "to_name": "prompt"}
    left, right, skipped, nothing = read(
        task(
            PAIR,
            annotation(10, selected("left"), note),
            annotation({"id": 11, "email": "ben@example.com"}, selected("right")),
            annotation(12, selected("left"), cancelled=True),
            annotation(13),
        )
    )
    assert left.prompt == [{"role": "user", "content": "The quick brown fox..."}]
    assert left.responses == ["jumps over the lazy dog.", "bags few lynx."]
    assert left.provenance == {"source": "person", "annotator": "10", "judge": "person:10", "record": 1}
    assert left.pairs == [Pair(0, 1, 1.0, verdicts=(SingleVerdict("first", 0, 1.0, "ok"),))]
    assert right.provenance["annotator"] == "ben@example.com"
    assert right.pairs == [Pair(0, 1, 0.0, verdicts=(SingleVerdict("first", 0, 0.0, "ok"),))]
    assert skipped.pairs == nothing.pairs == [Pair(0, 1, None, "abstain")]


@pytest.mark.parametrize("to_name", ["answer2,answer1", ["answer2", "answer1"], "txt-2, txt-1", "Answer 2,Answer 1"])
def test_left_is_the_first_that_the_tag_names(to_name):
    (row,) = read(task(PAIR, annotation(1, selected("left", to_name))))
    assert row.responses == ["bags few lynx.", "jumps over the lazy dog."]
    assert row.pairs[0].probability == 1.0


@pytest.mark.parametrize("around", [lambda ids: ids, lambda ids: {"rank": ids}, lambda ids: {"_": [], "best": ids}])
def test_a_ranking_is_read_in_its_order(around):
    value = around(["llm_3", "llm_1", "llm_2"])
    (row,) = read(task(ITEMS, annotation(1, ranked(value))))
    assert row.responses == [item["body"] for item in ITEMS["items"]]
    assert row.pairs == [Pair(0, 1, 1.0), Pair(0, 2, 0.0), Pair(1, 2, 0.0)]  # 3 > 1 > 2


def test_buckets_are_compared_inside_alone():
    first, second = read(
        task(
            ITEMS,
            annotation(1, ranked({"_": ["llm_2"], "relevant_results": ["llm_3", "llm_1"], "biased_results": []})),
            annotation(2, ranked({"_": ["llm_2", "llm_1", "llm_3"], "relevant_results": []})),
        )
    )
    assert first.pairs == [Pair(0, 2, 0.0)]
    assert {pair.status for pair in second.pairs} == {"abstain"}  # nothing was moved


@pytest.mark.parametrize(
    ("data", "result", "message"),
    [
        (PAIR, selected("middle"), "selected 'middle'"),
        (PAIR, selected("left", "left,right"), "are ambiguous among the data's prompt, answer1, answer2"),
        (PAIR, selected("left", "answer1"), "expected the names of two texts"),
        (PAIR, {"type": "choices", "value": {"choices": ["A"]}}, "none of the annotations holds a result"),
        ({"a1": "x", "a2": "y"}, selected("left", "a1,a2"), "is the prompt"),
        (ITEMS, ranked(["llm_9"]), "names items that 'items' does not have"),
        (ITEMS, ranked(["llm_1", "llm_1"]), "an item twice"),
        (ITEMS, ranked("llm_1"), "neither a list of ids"),
        (PAIR, ranked(["llm_1"]), "expected one list of items"),
    ],
)
def test_an_ambiguous_row_is_refused(data, result, message):
    with pytest.raises(BadRow, match=message):
        read(task(data, annotation(1, result)))


def test_an_exported_file_loads_and_tasks_without_labels_are_nothing(tmp_path):
    rows = [task(PAIR), task(PAIR, annotation(1, cancelled=True)), task(PAIR, annotation(1, selected("right")))]
    (tmp_path / "project-1.json").write_text(json.dumps(rows))
    loaded = load_rankings([DatasetEntry(path=str(tmp_path / "project-1.json"))], on_bad_row="stop", seed=0)
    assert list(loaded.formats.values()) == ["label_studio"]
    assert [row.pairs[0].probability for row in loaded.rows] == [0.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one | {"reason": "It is shorter."}, "an annotation has 'reason' ('It is shorter.')"),
        (
            lambda one: one | {"result": [selected("left") | {"comment": "It is shorter."}]},
            "a result has 'comment' ('It is shorter.')",
        ),
        (
            lambda one: one | {"result": [selected("left") | {"value": {"selected": "left", "by": "a lot"}}]},
            "a result's 'value' has 'by' ('a lot')",
        ),
    ],
)
def test_parts_with_keys_that_nothing_reads_are_refused(change, words):
    with pytest.raises(UnreadKey) as caught:
        read(task(PAIR, change(annotation(10, selected("left")))))
    assert words in str(caught.value)
    notes = {"prediction": {"result": [selected("right")]}, "updated_by": 3, "last_action": "submitted", "project": 1}
    assert read(task(PAIR, annotation(10, selected("left")) | notes))
