"""Argilla 2's exports: real-shaped records, and what of them becomes a comparison."""

import json

import pytest

from alignment.config.schema import DatasetEntry
from alignment.data.fields import BadRow
from alignment.data.load import load_rankings
from alignment.data.recognition import named, recognise
from alignment.data.rows import Pair

ANNA, BEN, CEM = (f"{n}a1c5f5e-8d6a-4b59-9d3e-0f4a6c1b2d3e" for n in (1, 2, 3))


def record(**responses):
    """A record as `dataset.records.to_json()` writes it."""
    return {
        "id": "7f0b1c", "_server_id": "5b0f5f3e-6f3c-4f0f-8a3c-1a2b3c4d5e6f", "status": "completed",
        "fields": {"prompt": "Why?", "response1": "Because.", "response2": "No.", "response3": "42."},
        "metadata": {"model": "sft"},
        "suggestions": {"preference": {"value": ["response2", "response1"], "score": None, "agent": "judge"}},
        "responses": responses,
        "vectors": {},
    }  # fmt: skip


def given(user, value, **more):
    return {"value": value, "user_id": user, **more}


def pairs_of(row):
    return [
        (r.provenance["annotator"], [(p.first, p.second, p.probability, p.status) for p in r.pairs])
        for r in recognise(row, "x").read(row)
    ]


def test_a_ranking_gives_one_row_for_each_person():
    row = record(
        preference=[
            given(ANNA, ["response2", "response1", "response3"]),
            given(BEN, [{"value": "response1", "rank": 1}, {"value": "response3", "rank": 1},
                        {"value": "response2", "rank": 3}]),
        ]
    )  # fmt: skip
    assert recognise(row, "x").name == "argilla"
    anna, ben = named("argilla").read(row)
    assert anna.prompt == [{"role": "user", "content": "Why?"}]
    assert anna.responses == ["Because.", "No.", "42."]
    assert anna.provenance == {
        "source": "person",
        "annotator": ANNA,
        "judge": f"person:{ANNA}",
        "question": "preference",
        "record": "7f0b1c",
    }
    # No. > Because. > 42.
    assert anna.pairs == [Pair(0, 1, 0.0), Pair(0, 2, 1.0), Pair(1, 2, 1.0)]
    # Because. = 42. > No.
    assert ben.pairs == [Pair(0, 1, 1.0), Pair(0, 2, 0.5, "tie"), Pair(1, 2, 0.0)]


def test_a_label_names_the_best_or_a_tie():
    row = record(
        better=[
            given(ANNA, "Response-2", status="submitted"),
            given(BEN, "tie", status="submitted"),
            given(CEM, "response_1", status="draft"),
            given("4", None, status="discarded"),
            given("5", "not sure", status="submitted"),
        ],
        comment=[given(ANNA, "well done")],
    )
    assert pairs_of(row) == [
        (ANNA, [(0, 1, 0.0, "ok"), (1, 2, 1.0, "ok")]),  # the second is best; the other two were not compared
        (BEN, [(0, 1, 0.5, "tie"), (0, 2, 0.5, "tie"), (1, 2, 0.5, "tie")]),
        ("4", [(0, 1, None, "abstain"), (0, 2, None, "abstain"), (1, 2, None, "abstain")]),
        ("5", [(0, 1, None, "abstain"), (0, 2, None, "abstain"), (1, 2, None, "abstain")]),
    ]


def test_ratings_of_each_answer_become_pairs_with_margins():
    row = record(**{"response1-rating": [given(ANNA, 4), given(BEN, 5)], "response2-rating": [given(ANNA, 1)]})
    anna, ben = named("argilla").read(row)
    assert (anna.responses, anna.pairs) == (["Because.", "No."], [Pair(0, 1, 1.0, "ok", 3.0)])
    assert ben.pairs == [Pair(0, 1, None, "abstain")]  # one rating compares nothing


def test_flat_rows_are_read_too():
    row = {
        "id": "1", "_server_id": "2", "status": "completed", "model": "sft-7b",
        "instruction": "Why?", "system": "Be brief.", "generation-0": "Because.", "generation-1": "No.",
        "better.responses": ["generation-1", "generation-0"], "better.responses.users": [ANNA, BEN],
        "better.responses.status": ["submitted", "draft"], "better.suggestion": None,
    }  # fmt: skip
    assert recognise(row, "x").name == "argilla"
    (anna,) = named("argilla").read(row)
    assert anna.prompt == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert (anna.responses, anna.pairs) == (["Because.", "No."], [Pair(0, 1, 0.0)])


def test_conversations_and_contexts_make_the_prompt():
    row = record(preference=[given(ANNA, ["response2", "response1"])])
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "How so?"},
             {"role": "user", "content": "Just why?"}]  # fmt: skip
    row["fields"] = {"chat": turns, "response1": "Because.", "response2": "No."}
    assert named("argilla").read(row)[0].prompt == turns
    row["fields"] = {"prompt": "Why?", "context": "It rains.", "response1": "Because.", "response2": "No."}
    assert named("argilla").read(row)[0].prompt == [{"role": "user", "content": "Why?\n\nIt rains."}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"responses": {"quality": [given(ANNA, "good")]}}, "no question compares the fields prompt, response1"),
        ({"responses": {"a": [given(ANNA, ["response1", "response2"])], "b": [given(ANNA, "tie")]}}, "several quest"),
        ({"responses": {"a": [given(ANNA, ["response1", "response1"])]}}, "names an answer twice"),
        ({"responses": {"a": [given(ANNA, "response1", status="lost")]}}, "the status 'lost'"),
        ({"responses": {"a": "response1"}}, "no list of objects"),
        ({"fields": {"text": "Why?", "note": "x", "r1": "a", "r2": "b"},
          "responses": {"a": [given(ANNA, ["r1", "r2"])]}}, "which of text, note is the prompt"),
        ({"fields": {"prompt": "Why?", "r1": "a", "r2": " "},
          "responses": {"a": [given(ANNA, ["r1", "r2"])]}}, "empty"),
        ({"fields": {"prompt": "Why?", "r1": "a"}, "responses": {"a": [given(ANNA, "r1")]}}, "are the answers"),
    ],
)  # fmt: skip
def test_an_ambiguous_row_is_refused(change, message):
    with pytest.raises(BadRow, match=message):
        named("argilla").read({**record(), **change})


def test_a_record_without_responses_gives_no_rows():
    assert named("argilla").read(record()) == []
    assert named("argilla").read(record(preference=[])) == []


def test_an_exported_file_loads(tmp_path):
    rows = [record(preference=[given(ANNA, ["response2", "response1"])]), record(preference=[])]
    (tmp_path / "records.json").write_text(json.dumps(rows, indent=4))
    loaded = load_rankings([DatasetEntry(path=str(tmp_path / "records.json"))], on_bad_row="stop", seed=0)
    assert list(loaded.formats.values()) == ["argilla"]
    assert [(row.provenance["annotator"], row.pairs) for row in loaded.rows] == [(ANNA, [Pair(0, 1, 0.0)])]
