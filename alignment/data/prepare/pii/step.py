"""Masks, replaces or drops the personal data of a row, in its texts and its other columns."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import phonenumbers

from alignment.config.faults import did_you_mean
from alignment.config.schema.steps.personal import PiiEntry
from alignment.data.keys import ORIGIN
from alignment.data.prepare.pii.finder import Finder, countries_of_presidio
from alignment.data.prepare.pii.ner import named_entities
from alignment.data.prepare.pii.spans import Span
from alignment.data.prepare.pii.surrogates import surrogate
from alignment.data.prepare.step import Change, Drop, Outcome, Row, Step, StepError
from alignment.errors import ModelError

UNLESS_NAMED = frozenset({"DATE_TIME", "URL"})  # seldom personal by themselves
STRUCTURE = frozenset({"role", "from", "type", "tool_call_id", ORIGIN})  # keys whose values are no text
FEWEST_DIGITS = 7  # of a number, written as a number, that is looked at


class Pii(Step):
    """Changes every string of a row; the values of keys are looked at behind the key's name, which gives context."""

    def __init__(self, entry: PiiEntry, seed: int) -> None:
        self.entry, self.seed = entry, seed
        models = []
        if entry.ner is not None:
            ner = entry.ner
            try:
                models.append(named_entities(ner.kind, ner.model_name_or_path, ner.labels, ner.threshold))
            except ModelError as error:
                raise StepError(f"step {entry.label}: {error}") from error
        self._require_known("countries", entry.countries, countries_of_presidio())
        self._require_known("phone_regions", entry.phone_regions or [], sorted(phonenumbers.SUPPORTED_REGIONS))
        self.finder = Finder(
            countries=entry.countries, phone_regions=entry.phone_regions, models=models, threshold=entry.threshold
        )
        known = sorted(self.finder.kinds)
        self._require_known("types", entry.types or [], known)
        self._require_known("actions", list(entry.actions), known)
        wanted = entry.types if entry.types is not None else [kind for kind in known if kind not in UNLESS_NAMED]
        actions = {**dict.fromkeys(wanted, entry.action), **entry.actions}
        self.actions = {kind: action for kind, action in actions.items() if action != "keep"}
        if not self.actions:
            raise StepError(f"step {entry.label} looks for no type of personal data; give types or actions")

    def _require_known(self, key: str, names: list[str], known: list[str]) -> None:
        for name in names:
            if name not in known:
                raise StepError(
                    f"step {self.entry.label}: {key}: {name} is not known{did_you_mean(name, known)}; known are "
                    f"{', '.join(known)}"
                )

    def apply(self, row: Row) -> Outcome:
        """Return the row without personal data; drop it if a type has that action.

        The record names types and numbers only, so that it holds no personal data.
        """
        treated = _Treated(self, row.origin if self.entry.surrogates == "row" else "")
        texts = row.with_texts([treated.text(each.text) for each in row.texts])
        places = {each.path for each in row.texts}
        value = treated.inside(texts.value, (), places)
        if not treated.found:
            return row
        detail = ", ".join(f"{number} {kind}" for kind, number in sorted(treated.found.items()))
        dropping = sorted(kind for kind in treated.found if self.actions[kind] == "drop")
        if dropping:
            return Drop("personal data", detail, private=True)
        return Change("personal data", (replace(texts, value=value),), detail, private=True)


class _Treated:
    """The strings of one row; its surrogates have one scope."""

    def __init__(self, step: Pii, scope: str) -> None:
        self.step, self.scope = step, scope
        self.found: Counter[str] = Counter()

    def text(self, text: str, context: str = "") -> str:
        """Return a text without its personal data.

        Args:
            context: stands before the text and is not a part of it.
        """
        pieces, end = [], 0
        for span in self._spans(text, context):
            self.found[span.kind] += 1
            pieces += [text[end : span.start], self._instead(span.kind, text[span.start : span.end])]
            end = span.end
        return "".join([*pieces, text[end:]]) if pieces else text

    def _spans(self, text: str, context: str) -> Iterator[Span]:
        if not text.strip():
            return
        begin = len(context)
        for span in self.step.finder.find(context + text, self.step.actions):
            if span.end > begin and text[max(span.start - begin, 0) : span.end - begin] not in self.step.entry.allow:
                yield replace(span, start=max(span.start - begin, 0), end=span.end - begin)

    def _instead(self, kind: str, value: str) -> str:
        if self.step.actions[kind] == "surrogate":
            return surrogate(kind, value, seed=self.step.seed, scope=self.scope)
        return f"<{kind}>"

    def inside(self, value: Any, path: tuple[Any, ...], done: set[tuple[Any, ...]]) -> Any:
        """Return a value of a row with every string and long number in it treated, but those at the places `done`."""
        if isinstance(value, dict):
            return {
                key: one if key in STRUCTURE else self.inside(one, (*path, key), done) for key, one in value.items()
            }
        if isinstance(value, list):
            return [self.inside(one, (*path, place), done) for place, one in enumerate(value)]
        key = next((re.sub("[_-]", " ", each) for each in reversed(path) if isinstance(each, str)), "")
        if isinstance(value, int) and not isinstance(value, bool) and len(str(abs(value))) >= FEWEST_DIGITS:
            written = self.text(str(value), f"{key}: ")
            return value if written == str(value) else written
        if not isinstance(value, str) or path in done:
            return value
        held = _json_of(value)
        if held is not None:  # the arguments of a call
            new = self.inside(held, path, set())
            return value if new == held else json.dumps(new, ensure_ascii=False)
        return self.text(value, f"{key}: ")


def _json_of(text: str) -> Any:
    """Return the object or list that a text holds as JSON, or None."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict | list) else None
