"""What is asked, from which folders and files, and that nothing of a judge's verdict goes along."""

import json

import pytest

from alignment.calls.store import CallStore, Sampled
from alignment.data.sampled import HASHES
from alignment.errors import AlignmentError, DataError
from reward.people.items import load_items, place_of, read_guidelines
from reward.people.store import PeopleStore

JUDGED = {
    "prompt": "Q",
    "responses": ["a", "b", "c"],
    "pairs": [
        {"first": 0, "second": 1, "probability": 0.9, "status": "ok"},
        {"first": 0, "second": 2, "probability": None, "status": "api_error"},
    ],
    "provenance": {"judge": "gpt", "prompt_hash": "f", "policy": {"path": "sft"}, "stopped": [True, False, True]},
}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_finished_run_is_asked_about_without_its_verdicts(tmp_path):
    write(tmp_path / "labels.jsonl", JUDGED, JUDGED)
    place = place_of(tmp_path, None)
    (item,) = load_items(place, ask="rank")  # the same question twice is one
    assert (item.prompt, item.responses) == ("Q", ["a", "b", "c"])
    assert item.provenance == {"policy": {"path": "sft"}, "stopped": [True, False, True]}
    assert place.store == tmp_path / "calls.sqlite"
    assert place.output == tmp_path / "people.jsonl"


def test_a_run_whose_labels_missed_the_gate_is_asked_about(tmp_path):
    write(tmp_path / "rejected.jsonl", JUDGED)
    assert len(load_items(place_of(tmp_path, None), ask="rank")) == 1


def test_pairs_are_those_that_the_judge_was_asked(tmp_path):
    items = load_items(place_of(write(tmp_path / "x.jsonl", JUDGED), None), ask="pairs")
    assert [(item.responses, item.provenance["stopped"]) for item in items] == [
        (["a", "b"], [True, False]),
        (["a", "c"], [True, True]),
    ]
    assert len({item.key for item in items}) == 2


def test_sampled_tokens_go_with_the_answers(tmp_path):
    record = {**dict.fromkeys(HASHES, "h"), "prompt_ids": [9], "response_ids": [[1, 0], [2], [3, 0]]}
    judged = {**JUDGED, "provenance": {**JUDGED["provenance"], "sampled_tokens": [record]}}
    place = place_of(write(tmp_path / "x.jsonl", judged), None)
    (item,) = load_items(place, ask="rank")
    assert item.provenance["sampled_tokens"] == [record]
    ids = [item.provenance["sampled_tokens"][0]["response_ids"] for item in load_items(place, ask="pairs")]
    assert ids == [[[1, 0], [2]], [[1, 0], [3, 0]]]


def test_an_interrupted_run_is_asked_about_from_its_samples(tmp_path):
    with CallStore(tmp_path / "calls.sqlite") as store:
        store.add_samples([Sampled(0, "Q", ["a", "b"], [True, False]), Sampled(1, "R", ["c", "c"], [True, True])])
    (tmp_path / "manifest.json").write_text(json.dumps({"policy": {"path": "sft"}}))
    (item,) = load_items(place_of(tmp_path, None), ask="rank")  # two equal answers ask nothing
    assert (item.prompt, item.responses) == ("Q", ["a", "b"])
    assert item.provenance == {"policy": {"path": "sft"}, "stopped": [True, False]}
    with PeopleStore(tmp_path / "calls.sqlite") as people:  # a table beside the judges'
        people.add_items([item])
    with CallStore(tmp_path / "calls.sqlite") as store:
        assert len(store.samples()) == 2


def test_any_preferences_may_be_asked_about(tmp_path):
    path = write(tmp_path / "pairs.jsonl", {"prompt": "Q", "chosen": "a", "rejected": "b"})
    place = place_of(path, None)
    assert [item.responses for item in load_items(place, ask="rank")] == [["a", "b"]]
    assert (place.store.name, place.output.name) == ("pairs.calls.sqlite", "pairs.people.jsonl")


def test_the_same_question_has_the_same_key_everywhere(tmp_path):
    other = {**JUDGED, "prompt": "other"}
    one = load_items(place_of(write(tmp_path / "1.jsonl", JUDGED, other), None), ask="rank")
    two = load_items(place_of(write(tmp_path / "2.jsonl", other, JUDGED), None), ask="rank")
    assert [item.key for item in one] == [item.key for item in reversed(two)]
    assert one[0].key != one[1].key
    assert len(load_items(place_of(tmp_path / "1.jsonl", None), ask="rank", limit=1)) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "Q", "responses": ["a", "a"], "ranks": [1, 1]}, "nothing to compare"),
        ({"prompt": "Q"}, "holds no comparisons"),
        ({"prompt": "Q", "responses": ["a", "\ud800"], "pairs": []}, "surrogate"),
    ],
)
def test_items_that_cannot_be_compared_are_reported(tmp_path, row, message):
    path = write(tmp_path / "x.jsonl", row)
    with pytest.raises(DataError, match=message):
        load_items(place_of(path, None), ask="rank")


def test_missing_files_are_reported(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        place_of(tmp_path / "none", None)
    with pytest.raises(AlignmentError, match=r"--guidelines .*none.md: no such file"):
        read_guidelines(tmp_path / "none.md")
    (tmp_path / "latin.md").write_bytes(b"\xe4")
    with pytest.raises(AlignmentError, match="not UTF-8"):
        read_guidelines(tmp_path / "latin.md")


def test_an_evaluations_answers_carry_their_policies(tmp_path):
    rows = [
        {"prompt": f"q{i}", "answers": {"sft": f"a{i}", "ppo": f"b{i}", "dpo": f"c{i}"}, "verdicts": {},
         "stopped": {"sft": True, "ppo": False, "dpo": True}}
        for i in range(2)
    ]  # fmt: skip
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ranked = load_items(place_of(tmp_path, None), ask="rank")
    assert [item.provenance["policies"] for item in ranked] == [["sft", "ppo", "dpo"]] * 2
    paired = load_items(place_of(tmp_path, None), ask="pairs")
    found = [(item.responses, item.provenance["policies"], item.provenance["stopped"]) for item in paired[:3]]
    assert found == [
        (["a0", "b0"], ["sft", "ppo"], [True, False]),
        (["a0", "c0"], ["sft", "dpo"], [True, True]),
        (["b0", "c0"], ["ppo", "dpo"], [False, True]),
    ]
    (tmp_path / "answers.jsonl").write_text('{"prompt": "q"}\n')
    with pytest.raises(DataError, match=r"answers\.jsonl:1: is not a row of an evaluation"):
        load_items(place_of(tmp_path, None), ask="rank")
