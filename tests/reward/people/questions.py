"""Items and an annotation queue for tests of people's labels."""

from pathlib import Path

from reward.people.annotation_queue import AnnotationQueue, Rules
from reward.people.items import Item, key_of
from reward.people.store import PeopleStore


def item(number: int, responses: list[str] | None = None) -> Item:
    prompt = f"Question {number}?"
    answers = responses or [f"{letter}{number}" for letter in "abc"]
    return Item(key_of(prompt, answers), prompt, answers, {"policy": {"path": "runs/sft"}})


def open_queue(path: Path, items: list[Item], rules: Rules | None = None) -> tuple[AnnotationQueue, PeopleStore]:
    store = PeopleStore(path)
    return AnnotationQueue(items, store, rules or Rules(), guidelines="Be fair.", guidelines_hash="cafe"), store


def answer(queue: AnnotationQueue, person: str, view: dict, verdict: object) -> None:
    queue.submit(person, view["item"], view["view"], verdict, 1.5)


def by_text(view: dict, order: str) -> dict:
    """The verdict that ranks answers by their first letter, `order` from best to worst, as shown."""
    return {"ranks": [order.index(text[0]) + 1 for text in view["answers"]]}
