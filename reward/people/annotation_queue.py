"""Assigns items to annotators, blind and in a random order for each, and accepts their labels. Independent of HTTP."""

import hashlib
import hmac
import math
import random
import secrets
import time
import unicodedata
from dataclasses import dataclass
from typing import Any

from alignment.data.conversations import carried_tools, with_tools
from alignment.data.rows import Prompt
from alignment.errors import AlignmentError
from reward.people.items import Item
from reward.people.label import COUNTED, Label, LabelStatus, highest_rank
from reward.people.store import PeopleStore

CLAIM_SECONDS = 1800.0  # during which an item that is assigned to one person is not assigned to another
LONGEST_SECONDS = 24 * 3600.0
LONGEST_NAME = 64


class LabelRefused(AlignmentError):
    """A label that is not valid; nothing was stored."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status  # the HTTP status code


@dataclass(frozen=True, slots=True)
class Rules:
    """How items are assigned."""

    overlap: float = 0.0  # share of the items that several people label
    per_item: int = 2  # how many people label each of those
    seed: int = 0


class AnnotationQueue:
    """One queue for all annotators; every label is stored before a request is answered."""

    def __init__(
        self, items: list[Item], store: PeopleStore, rules: Rules, *, guidelines: str = "", guidelines_hash: str = ""
    ) -> None:
        self.items = {item.key: item for item in items}
        self.store = store
        self.rules = rules
        self.guidelines = guidelines
        self._guidelines_hash = guidelines_hash
        self._secret = secrets.token_bytes(32)
        self._labels: dict[str, dict[str, Label]] = {}  # annotator → item → last label
        self._claims: dict[str, tuple[str, float]] = {}  # annotator → assigned item, and the time of the assignment
        store.add_items(items)
        for label in store.labels():
            self._remember(label)
        shuffled = list(self.items)
        random.Random(f"{rules.seed}/shared").shuffle(shuffled)
        self._shared = {key: place for place, key in enumerate(shuffled[: round(rules.overlap * len(shuffled))])}

    def person(self, name: Any) -> str:
        """Return the stored spelling of a name, without white space around it.

        Raises: LabelRefused if it is not a name.
        """
        if not isinstance(name, str):
            raise LabelRefused("the annotator's name is missing", 400)
        plain = unicodedata.normalize("NFC", " ".join(name.split()))
        if not plain or len(plain) > LONGEST_NAME or not plain.isprintable():
            raise LabelRefused(f"a name has 1 to {LONGEST_NAME} printable characters")
        return next((known for known in self._labels if known.casefold() == plain.casefold()), plain)

    def progress(self, annotator: str) -> dict[str, Any]:
        """Return the numbers of labelled and remaining items of this person, and the last labelled item."""
        labels = self._counted(annotator)
        return {"done": len(labels), "left": len(self._open(annotator)), "last": labels[-1].item if labels else None}

    def next(self, annotator: str) -> dict[str, Any] | None:
        """Return the next item for this person, the same until it is labelled; None if none is left."""
        claimed = self._claims.get(annotator)
        open_items = self._open(annotator)
        key = claimed[0] if claimed and claimed[0] in open_items else self._choice(annotator, open_items)
        if key is None:
            self._claims.pop(annotator, None)
            return None
        self._claims[annotator] = (key, time.monotonic())
        return self.look(annotator, key)

    def look(self, annotator: str, key: Any) -> dict[str, Any]:
        """Return an item as this person sees it, with their label if there is one.

        Answers are in a random order for this person and item, without their position in the file.

        Raises: LabelRefused if there is no such item.
        """
        item = self._item(key)
        shown = self._shown(annotator, item)
        label = self._labels.get(annotator, {}).get(item.key)
        ranks = label.ranks if label and label.status in COUNTED else None
        return {
            "item": item.key,
            "view": self._view(annotator, item.key, shown),
            "prompt": _turns(item.prompt),
            "answers": [item.responses[index] for index in shown],
            "label": None
            if label is None or label.status not in COUNTED
            else {"status": label.status, "ranks": None if ranks is None else [ranks[index] for index in shown]},
            "earlier": self._earlier(annotator, item.key),
        }

    def submit(self, annotator: str, key: Any, view: Any, verdict: Any, seconds: Any) -> Label:
        """Accept a label: a rank for every answer in the order shown, "abstain" or "skipped".

        Of one answer, rank 1 is good and 2 bad.

        Raises: LabelRefused if anything about it is not as it must be.
        """
        item = self._item(key)
        shown = self._shown(annotator, item)
        if view != self._view(annotator, item.key, shown):
            raise LabelRefused("the answers were shown in another order or to another person; reload the page", 409)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            raise LabelRefused("seconds must be a number, 0 or more")
        status, ranks = _verdict(verdict, item, shown)
        return self._keep(annotator, item.key, status, ranks, shown, float(min(seconds, LONGEST_SECONDS)))

    def undo(self, annotator: str) -> dict[str, Any]:
        """Delete this person's last label and return its item, to be labelled again.

        Raises: LabelRefused if there is none.
        """
        labels = self._counted(annotator)
        if not labels:
            raise LabelRefused("there is no label to delete", 409)
        last = labels[-1]
        self._keep(annotator, last.item, "withdrawn", None, last.shown, 0.0)
        self._claims[annotator] = (last.item, time.monotonic())
        return self.look(annotator, last.item)

    def labels(self) -> list[Label]:
        """Return all current labels, by person and time."""
        return [label for person in sorted(self._labels) for label in self._counted(person)]

    def _keep(
        self, annotator: str, key: str, status: LabelStatus, ranks: list[int] | None, shown: list[int], seconds: float
    ) -> Label:
        label = self.store.add(Label(annotator, key, status, ranks, shown, self._guidelines_hash, seconds))
        self._remember(label)
        self._claims.pop(annotator, None)
        return label

    def _remember(self, label: Label) -> None:
        self._labels.setdefault(label.annotator, {})[label.item] = label

    def _counted(self, annotator: str) -> list[Label]:
        """The current labels of a person, by time."""
        mine = self._labels.get(annotator, {}).values()
        standing = [label for label in mine if label.status in COUNTED and label.item in self.items]
        return sorted(standing, key=lambda label: label.number)

    def _earlier(self, annotator: str, key: str) -> str | None:
        """The item labelled before this one, or the last labelled item if this one has no label."""
        done = [label.item for label in self._counted(annotator)]
        before = done.index(key) - 1 if key in done else len(done) - 1
        return done[before] if before >= 0 else None

    def _open(self, annotator: str) -> list[str]:
        """Items that may still be assigned to this person."""
        mine = self._labels.get(annotator, {})
        taken: dict[str, int] = {}
        for person, labels in self._labels.items():
            if person != annotator:
                for key, label in labels.items():
                    taken[key] = taken.get(key, 0) + (label.status in COUNTED)
        now = time.monotonic()
        for person, (key, since) in self._claims.items():
            if person != annotator and now - since < CLAIM_SECONDS:
                taken[key] = taken.get(key, 0) + 1
        return [
            key
            for key in self.items
            if (key not in mine or mine[key].status not in COUNTED)
            and taken.get(key, 0) < (self.rules.per_item if key in self._shared else 1)
        ]

    def _choice(self, annotator: str, keys: list[str]) -> str | None:
        """Draw the next item; shared items have the same order for all people, so that their labels overlap.

        Which turn is a shared item's is drawn for each person; skipped items come last, the longest ago first.
        """
        mine = self._labels.get(annotator, {})
        fresh = [key for key in keys if key not in mine or mine[key].status != "skipped"]
        if not fresh:
            return min(keys, key=lambda key: mine[key].number, default=None)
        shared = [key for key in fresh if key in self._shared]
        own = [key for key in fresh if key not in self._shared]
        turn = len(self._counted(annotator))
        if shared and (not own or _draw(self.rules.seed, annotator, turn) < self.rules.overlap):
            return min(shared, key=self._shared.__getitem__)
        return min(own, key=lambda key: _draw(self.rules.seed, annotator, key))

    def _item(self, key: Any) -> Item:
        item = self.items.get(key) if isinstance(key, str) else None
        if item is None:
            raise LabelRefused("there is no such item", 404)
        return item

    def _shown(self, annotator: str, item: Item) -> list[int]:
        shown = item.distinct
        random.Random(f"{self.rules.seed}/{annotator}/{item.key}").shuffle(shown)
        return shown

    def _view(self, annotator: str, key: str, shown: list[int]) -> str:
        """The code that a label must contain, so that a label of another order or person is refused.

        Keyed, because the order may reveal the label: of `chosen` and `rejected` the first is preferred.
        """
        return hmac.new(self._secret, f"{annotator}/{key}/{shown}".encode(), "sha256").hexdigest()[:16]


def _verdict(verdict: Any, item: Item, shown: list[int]) -> tuple[LabelStatus, list[int] | None]:
    if verdict in ("abstain", "skipped"):
        return verdict, None
    given = verdict.get("ranks") if isinstance(verdict, dict) else None
    if not isinstance(given, list) or len(given) != len(shown):
        raise LabelRefused(f'the verdict must be {{"ranks": [{len(shown)} numbers]}}, "abstain" or "skipped"')
    most = highest_rank(len(shown))
    if not all(isinstance(rank, int) and not isinstance(rank, bool) and 1 <= rank <= most for rank in given):
        raise LabelRefused(f"ranks are whole numbers from 1 to {most}")
    if len(item.responses) == 1:
        return "ok", given
    dense = {rank: place for place, rank in enumerate(sorted(set(given)), start=1)}
    by_text = {item.responses[index]: dense[rank] for index, rank in zip(shown, given, strict=True)}
    return ("tie" if len(dense) == 1 else "ok"), [by_text[response] for response in item.responses]


def _draw(*what: Any) -> float:
    """A number from 0 to 1 that depends on `what` alone."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, what)).encode()).digest()[:8], "big") / 2**64


def _turns(prompt: Prompt) -> list[dict[str, str]]:
    if isinstance(prompt, str):
        return [{"role": "", "text": prompt}]
    messages = with_tools(*carried_tools(prompt))
    return [{"role": message["role"], "text": message["content"]} for message in messages]
