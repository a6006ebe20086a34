"""Who is handed what, in which order, and what becomes of a verdict."""

import itertools

import pytest

from alignment.data.rankings import ranking_from_json, ranking_to_json
from alignment.data.rows import SingleVerdict
from reward.people.annotation_queue import AnnotationQueue, LabelRefused, Rules
from reward.people.labels import rankings
from reward.people.store import PeopleStore
from tests.reward.people.questions import answer, by_text, item, open_queue


def work_off(queue: AnnotationQueue, person: str) -> list[str]:
    """Label all that is handed to a person, and return the items in that order."""
    order = []
    while (view := queue.next(person)) is not None:
        order.append(view["item"])
        answer(queue, person, view, by_text(view, "abc"))
    return order


def test_a_verdict_is_about_the_texts_whatever_their_order_on_the_page(tmp_path):
    items = [item(number) for number in range(12)]
    queue, store = open_queue(tmp_path / "s", items)
    shown = set()
    for _ in items:
        view = queue.next("anna")
        shown.add(tuple(text[0] for text in view["answers"]))
        answer(queue, "anna", view, by_text(view, "cab"))  # c is best, then a, then b
    assert len(shown) > 3  # of 6 orders
    for row in rankings(store.labels(), store.items()):
        # responses are a, b, c: a beats b, c beats a, c beats b
        assert [(p.first, p.second, p.probability, p.status) for p in row.pairs] == [
            (0, 1, 1.0, "ok"),
            (0, 2, 0.0, "ok"),
            (1, 2, 0.0, "ok"),
        ]


def test_rows_have_the_order_shown_the_annotator_and_the_time(tmp_path):
    asked = item(0, ["a", "b"])
    seen = set()
    for seed in range(8):
        queue, store = open_queue(tmp_path / f"{seed}", [asked], Rules(seed=seed))
        view = queue.next("Anna")
        answer(queue, "Anna", view, by_text(view, "ab"))
        (row,) = rankings(store.labels(), store.items())
        first = view["answers"] == ["a", "b"]
        seen.add(first)
        # `probability` of a verdict is that of the answer shown first
        assert row.pairs[0].verdicts == (
            SingleVerdict("first" if first else "swapped", 0, 1.0 if first else 0.0, "ok"),
        )
        assert row.provenance.pop("labelled_at") > 1.7e9
        assert row.provenance == {
            "policy": {"path": "runs/sft"},
            "source": "person",
            "annotator": "Anna",
            "judge": "person:Anna",
            "prompt_hash": "cafe",
            "item": asked.key,
            "seconds": 1.5,
        }
        assert ranking_from_json(ranking_to_json(row)) == row
        store.close()
    assert seen == {True, False}


def test_ties_and_cannot_say_keep_their_statuses(tmp_path):
    queue, store = open_queue(tmp_path / "s", [item(0), item(1), item(2)])
    verdicts = {}
    for verdict in ({"ranks": [1, 1, 1]}, "abstain", None):
        view = queue.next("anna")
        verdict = verdict or {"ranks": [3 if text[0] == "b" else 1 for text in view["answers"]]}  # a = c > b
        verdicts[view["item"]] = verdict
        answer(queue, "anna", view, verdict)
    expected = {
        "[1, 1, 1]": [0.5, 0.5, 0.5],
        "abstain": [None, None, None],
    }
    for label, row in zip(store.labels(), rankings(store.labels(), store.items()), strict=True):
        verdict = verdicts[label.item]
        found = [pair.probability for pair in row.pairs]
        if verdict == "abstain":
            assert found == expected["abstain"]
            assert {pair.status for pair in row.pairs} == {label.status} == {"abstain"}
        elif verdict["ranks"] == [1, 1, 1]:
            assert found == expected["[1, 1, 1]"]
            assert {pair.status for pair in row.pairs} == {label.status} == {"tie"}
        else:
            assert found == [1.0, 0.5, 0.0]  # a-b, a-c, b-c
            assert [pair.status for pair in row.pairs] == ["ok", "tie", "ok"]
            assert sorted(label.ranks) == [1, 1, 2]  # ranks are dense, whatever numbers were pressed


def test_the_same_text_twice_is_shown_once_and_ties_with_itself(tmp_path):
    queue, store = open_queue(tmp_path / "s", [item(0, ["a", "b", "a"])])
    view = queue.next("anna")
    assert sorted(view["answers"]) == ["a", "b"]
    answer(queue, "anna", view, by_text(view, "ba"))
    (row,) = rankings(store.labels(), store.items())
    assert [(pair.probability, pair.status, len(pair.verdicts)) for pair in row.pairs] == [
        (0.0, "ok", 1),
        (0.5, "tie", 0),  # nobody was asked
        (1.0, "ok", 1),
    ]


def test_the_page_reveals_no_judges_or_places(tmp_path):
    asked = item(0)
    queue, _ = open_queue(tmp_path / "s", [asked])
    view = queue.next("anna")
    assert set(view) == {"item", "view", "prompt", "answers", "label", "earlier"}
    assert view["prompt"] == [{"role": "", "text": "Question 0?"}]


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        ({"ranks": [1, 2]}, "3 numbers"),
        ({"ranks": [1, 2, 4]}, "from 1 to 3"),
        ({"ranks": [0, 1, 2]}, "from 1 to 3"),
        ({"ranks": [True, 2, 3]}, "whole numbers"),
        ({"ranks": [1.0, 2, 3]}, "whole numbers"),
        ({"ranks": "123"}, "3 numbers"),
        ({}, "3 numbers"),
        (None, "3 numbers"),
        ("ok", "3 numbers"),
        ([1, 2, 3], "3 numbers"),
    ],
)
def test_a_verdict_that_is_none_is_refused_and_stores_nothing(tmp_path, verdict, message):
    queue, store = open_queue(tmp_path / "s", [item(0)])
    view = queue.next("anna")
    with pytest.raises(LabelRefused, match=message):
        answer(queue, "anna", view, verdict)
    assert store.labels() == []


@pytest.mark.parametrize("seconds", [None, "1", True, -1, float("nan"), float("inf"), [1]])
def test_seconds_must_be_a_number(tmp_path, seconds):
    queue, store = open_queue(tmp_path / "s", [item(0)])
    view = queue.next("anna")
    with pytest.raises(LabelRefused, match="seconds"):
        queue.submit("anna", view["item"], view["view"], "abstain", seconds)
    assert store.labels() == []


def test_a_verdict_given_to_another_order_or_person_is_refused(tmp_path):
    items = [item(number) for number in range(2)]
    queue, store = open_queue(tmp_path / "s", items)
    view = queue.next("anna")
    with pytest.raises(LabelRefused, match="another order or to another person") as refused:
        queue.submit("ben", view["item"], view["view"], {"ranks": [1, 2, 3]}, 1)
    assert refused.value.status == 409
    store.close()
    # The page was loaded before a restart with another seed: its "1" stands for another answer now.
    for seed in range(1, 20):
        again, store = open_queue(tmp_path / "s", items, Rules(seed=seed))
        if again.look("anna", view["item"])["answers"] != view["answers"]:
            with pytest.raises(LabelRefused, match="reload the page"):
                answer(again, "anna", view, {"ranks": [1, 2, 3]})
        assert store.labels() == []
        store.close()


def test_names_are_kept_as_first_spelled(tmp_path):
    queue, _ = open_queue(tmp_path / "s", [item(0), item(1)])
    view = queue.next(queue.person("  Anna  B "))
    answer(queue, queue.person("  Anna  B "), view, "abstain")
    assert queue.person("anna b") == "Anna B"
    for name in (None, "", "   ", "x" * 65, "a\x00b", "a\u202eb", 7):
        with pytest.raises(LabelRefused):
            queue.person(name)


def test_every_person_has_an_order_of_their_own_and_it_repeats(tmp_path):
    items = [item(number) for number in range(30)]
    orders = {}
    for person in ("anna", "ben", "anna"):
        queue, store = open_queue(tmp_path / f"{person}{len(orders)}", items)
        order = work_off(queue, person)
        assert sorted(order) == sorted(one.key for one in items)
        assert orders.setdefault(person, order) == order
        store.close()
    assert orders["anna"] != orders["ben"] != [one.key for one in items]


def test_without_overlap_every_item_is_labelled_once(tmp_path):
    queue, store = open_queue(tmp_path / "s", [item(number) for number in range(20)])
    for person in itertools.cycle(["anna", "ben", "cem"]):
        view = queue.next(person)
        if view is None:
            break
        answer(queue, person, view, "abstain")
    labelled = [label.item for label in store.labels()]
    assert len(labelled) == len(set(labelled)) == 20


@pytest.mark.parametrize("per_item", [2, 3])
def test_overlap_is_the_share_that_several_people_label(tmp_path, per_item):
    items = [item(number) for number in range(40)]
    queue, store = open_queue(tmp_path / "s", items, Rules(overlap=0.25, per_item=per_item))
    people = ["anna", "ben", "cem"]
    open_to = set(people)
    while open_to:
        for person in sorted(open_to):
            view = queue.next(person)
            if view is None:
                open_to.remove(person)
            else:
                answer(queue, person, view, "abstain")
    counts = [sum(label.item == one.key for label in store.labels()) for one in items]
    assert sorted(counts) == [1] * 30 + [per_item] * 10  # a quarter of 40


def test_people_who_stop_early_have_met_on_shared_items(tmp_path):
    items = [item(number) for number in range(1000)]
    queue, store = open_queue(tmp_path / "s", items, Rules(overlap=0.2))
    for _, person in itertools.product(range(50), ["anna", "ben"]):
        answer(queue, person, queue.next(person), "abstain")
    mine = {person: {label.item for label in store.labels() if label.annotator == person} for person in ("anna", "ben")}
    assert len(mine["anna"] & mine["ben"]) >= 5  # of about 10 shared ones each, out of 200 in all


def test_two_people_are_not_handed_the_same_item_at_once(tmp_path):
    queue, _ = open_queue(tmp_path / "s", [item(0), item(1)])
    first, second = queue.next("anna"), queue.next("ben")
    assert first["item"] != second["item"]
    assert queue.next("anna") == first  # the same until it is answered
    assert queue.next("cem") is None


def test_skipped_items_come_again_at_the_end(tmp_path):
    queue, store = open_queue(tmp_path / "s", [item(number) for number in range(4)])
    first = queue.next("anna")
    answer(queue, "anna", first, "skipped")
    assert queue.progress("anna") == {"done": 0, "left": 4, "last": None}
    order = [queue.next("anna")["item"]]
    for _ in range(3):
        view = queue.next("anna")
        answer(queue, "anna", view, "abstain")
        order.append((queue.next("anna") or {"item": None})["item"])
    assert order[:-1].count(first["item"]) == 0
    assert order[-1] == first["item"]
    assert len(rankings(store.labels(), store.items())) == 3  # a skip is no label


def test_undo_takes_the_last_label_back(tmp_path):
    queue, store = open_queue(tmp_path / "s", [item(0), item(1)])
    view = queue.next("anna")
    answer(queue, "anna", view, "abstain")
    again = queue.undo("anna")
    assert again["item"] == view["item"]
    assert again["label"] is None
    assert rankings(store.labels(), store.items()) == []
    assert queue.next("anna")["item"] == view["item"]
    with pytest.raises(LabelRefused, match="no label"):
        queue.undo("anna")


def test_an_earlier_item_can_be_looked_at_and_judged_anew(tmp_path):
    queue, store = open_queue(tmp_path / "s", [item(number) for number in range(3)])
    first = queue.next("anna")
    answer(queue, "anna", first, by_text(first, "abc"))
    second = queue.next("anna")
    answer(queue, "anna", second, "abstain")
    third = queue.next("anna")
    assert (first["earlier"], third["earlier"]) == (None, second["item"])
    back = queue.look("anna", queue.look("anna", third["earlier"])["earlier"])
    assert back["item"] == first["item"]
    assert back["label"] == {"status": "ok", **by_text(first, "abc")}
    answer(queue, "anna", back, by_text(back, "cba"))
    rows = {row.provenance["item"]: row for row in rankings(store.labels(), store.items())}
    assert len(rows) == 2
    assert rows[first["item"]].pairs[0].probability == 0.0  # a against b: the new word counts


def test_everything_is_restored_after_a_restart(tmp_path):
    items = [item(number) for number in range(6)]
    queue, store = open_queue(tmp_path / "s", items)
    for _ in range(3):
        view = queue.next("anna")
        answer(queue, "anna", view, by_text(view, "bca"))
    before, waiting = store.labels(), queue.next("anna")
    store.close()
    again, store = open_queue(tmp_path / "s", items)
    assert store.labels() == before
    assert again.progress("anna") == {"done": 3, "left": 3, "last": before[-1].item}
    assert {**again.next("anna"), "view": waiting["view"]} == waiting
    assert again.undo("anna")["item"] == before[-1].item


def test_labels_stay_readable_when_the_file_of_items_changed(tmp_path):
    queue, store = open_queue(tmp_path / "s", [item(0)])
    answer(queue, "anna", queue.next("anna"), "abstain")
    store.close()
    queue, store = open_queue(tmp_path / "s", [item(1)])
    assert queue.progress("anna") == {"done": 0, "left": 1, "last": None}
    assert [row.prompt for row in rankings(store.labels(), store.items())] == ["Question 0?"]


def test_one_process_holds_the_store(tmp_path):
    from alignment.errors import AlignmentError

    with PeopleStore(tmp_path / "s"), pytest.raises(AlignmentError, match="another process labels"):
        PeopleStore(tmp_path / "s")
