"""Scores rows and keeps the best."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ClassVar, Protocol

from alignment.config.schema.steps.scores import ClassifierEntry, ScoreEntry
from alignment.data.prepare.step import LAYOUTS, ROLES, Drop, Outcome, Row, Rows, Step, StepError
from alignment.data.rows import Demonstration, Prompt, Ranking
from alignment.errors import first_line

BATCH = 512  # rows that a scorer gets at once
TRIED = 2  # rows that a function scores before anything is written
SHOWN = (0.0, 0.25, 0.5, 0.75, 1.0)  # quantiles on the page


@dataclass(frozen=True)
class Answer:
    """What a scorer reads of a row."""

    prompt: Prompt
    answer: str
    columns: Mapping[str, Any]


class Scorer(Protocol):
    """Scores answers; the package `reward` has those of recipes."""

    tries: bool  # it may score a few rows before anything is written

    def opened(self) -> AbstractContextManager[Any]:
        """Open what the run's folder keeps, such as the calls of a judge."""
        ...

    def score(self, answers: Sequence[Answer]) -> Sequence[float | None]:
        """Return a finite score for each answer; None if the scorer does not apply."""
        ...


class Score(Step):
    """Scores all rows, and then drops those that are not kept."""

    LOOKS: ClassVar[bool] = True

    def __init__(self, entry: ScoreEntry, scorer: Scorer | None) -> None:
        """`scorer`: of `entry.scorer`; None: the entry has a classifier."""
        self.entry, self.scorer, self.by = entry, scorer, entry.per
        self.roles = ROLES[entry.classifier.on] if entry.classifier is not None else ()
        self.classifier = None if entry.classifier is None else Classifier(entry.label, entry.classifier)
        self.scores: list[float | None] = []
        self.refused: dict[int, Drop] = {}  # by place

    def require(self, rows: Rows) -> None:
        """Score the first rows by a function, so that a wrong one ends the stage before anything is written."""
        for row in islice(rows, 1):
            self._require_free(row)
        if self.scorer is not None and self.scorer.tries:
            self._scores([row for row in islice(rows, TRIED) if row.layout])

    def look(self, rows: Rows) -> None:
        """Score all rows, and choose."""
        self.scores = []
        iterator = iter(rows)
        with self.scorer.opened() if self.scorer is not None else nullcontext():
            while batch := list(islice(iterator, BATCH)):
                self.scores += self._scores(batch)
        self.refused = self._chosen(rows)

    def apply(self, row: Row) -> Outcome:
        """Return the row with its score, or drop it."""
        score = self.scores[row.place]
        self._require_free(row)
        drop = self.refused.get(row.place)
        if drop is not None:
            return drop
        value = {**row.value, self.entry.column: score}
        return replace(row, value=value).noting(**{self.entry.column: score})

    def findings(self) -> dict[str, Any]:
        """Return quantiles of the scores."""
        known = sorted(score for score in self.scores if score is not None)
        found: dict[str, Any] = {"scored": len(known), "without_score": len(self.scores) - len(known)}
        if known:
            found["quantiles"] = {f"{q:g}": quantile_of(known, q) for q in SHOWN}
        if self.classifier is not None:
            found["cut_off"] = self.classifier.cut
        return found

    def _require_free(self, row: Row) -> None:
        if self.entry.column in row.value:
            raise StepError(
                f"step {self.entry.label}: {row.origin} has a column {self.entry.column}; give column another name"
            )

    def _scores(self, rows: Sequence[Row]) -> Sequence[float | None]:
        if self.classifier is not None:
            return self.classifier.score([row.joined(self.classifier.entry.on) for row in rows])
        if self.scorer is None:
            raise StepError(f"step {self.entry.label}: the scorer is built by recipes/prepare.py alone")
        return self.scorer.score([self._answer(row) for row in rows])

    def _answer(self, row: Row) -> Answer:
        found = LAYOUTS[row.layout].read(row.value) if row.layout else []
        columns = {**row.value, **row.notes}
        if len(found) == 1 and isinstance(found[0], Demonstration):
            return Answer(found[0].prompt, found[0].completion, columns)
        if len(found) == 1 and isinstance(found[0], Ranking) and len(found[0].responses) == 1:
            return Answer(found[0].prompt, found[0].responses[0], columns)
        raise StepError(
            f"step {self.entry.label}: {row.origin}: a scorer reads rows with one answer; the layout "
            f"{row.layout or 'of columns'} has another number. Use a classifier, or rows of demonstrations"
        )

    def _chosen(self, rows: Rows) -> dict[int, Drop]:
        """Return the rows to drop."""
        entry, scores = self.entry, dict(enumerate(self.scores))
        known = {place: score for place, score in scores.items() if score is not None}
        limits = (entry.minimum, entry.maximum, entry.quantile, entry.top_k)
        if all(limit is None for limit in limits):
            return {}
        drops = {place: Drop("no score") for place, score in scores.items() if score is None}
        if entry.minimum is not None:
            drops |= _below(known, entry.minimum, f"score below {entry.minimum:g}")
        if entry.maximum is not None:
            above = {place: score for place, score in known.items() if score > entry.maximum}
            drops |= {place: Drop(f"score above {entry.maximum:g}", f"{score:g}") for place, score in above.items()}
        if entry.quantile is not None and known:
            least = quantile_of(sorted(known.values()), entry.quantile)
            drops |= _below(known, least, f"score below the quantile {entry.quantile:g}")
        if entry.top_k is not None:
            groups: dict[str, list[int]] = defaultdict(list)
            for row in rows:
                if row.place in known:
                    groups[json.dumps(row.column(entry.per) if entry.per else None, sort_keys=True)].append(row.place)
            for places in groups.values():
                places.sort(key=lambda place: (-known[place], place))
                reason = f"not among the {entry.top_k:,} best" + (f" of its {entry.per}" if entry.per else "")
                drops |= {place: Drop(reason, f"{known[place]:g}") for place in places[entry.top_k :]}
        return drops


class Classifier:
    """The probability of a label by a sequence classifier."""

    def __init__(self, label: str, entry: ClassifierEntry) -> None:
        """Load the model.

        Raises: StepError if it cannot be loaded, or has no such label.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.entry = entry
        self.cut = 0  # texts that are longer than the context
        path = entry.model_name_or_path
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(path)
            self.model = AutoModelForSequenceClassification.from_pretrained(path, use_safetensors=True).eval()
        except Exception as error:  # a missing file, a damaged one, another kind of model
            raise StepError(f"step {label}: {path}: no text classifier can be loaded: {first_line(error)}") from error
        labels = {str(name): int(place) for place, name in self.model.config.id2label.items()}
        if entry.label not in labels:
            raise StepError(f"step {label}: {path} has no label {entry.label}; it has {', '.join(labels)}")
        self.place = labels[entry.label]
        limits = (getattr(self.model.config, "max_position_embeddings", None), self.tokenizer.model_max_length)
        self.longest = min(int(limit) for limit in limits if limit)

    def score(self, texts: Sequence[str]) -> list[float | None]:
        """Return the label's probability for each text: by softmax, or by sigmoid if several labels may hold."""
        import torch

        found: list[float | None] = []
        several = self.model.config.problem_type == "multi_label_classification" or self.model.config.num_labels == 1
        for start in range(0, len(texts), self.entry.batch_size):
            batch = [text or " " for text in texts[start : start + self.entry.batch_size]]
            lengths = self.tokenizer(batch, truncation=False, verbose=False)["input_ids"]
            self.cut += sum(len(ids) > self.longest for ids in lengths)
            given = self.tokenizer(batch, truncation=True, max_length=self.longest, padding=True, return_tensors="pt")
            with torch.inference_mode():
                logits = self.model(**given).logits.float()
            found += (logits.sigmoid() if several else logits.softmax(-1))[:, self.place].tolist()
        return found


def quantile_of(scores: Sequence[float], q: float) -> float:
    """Return a quantile of sorted scores, interpolated linearly."""
    at = q * (len(scores) - 1)
    low, high = math.floor(at), math.ceil(at)
    return scores[low] + (scores[high] - scores[low]) * (at - low)


def _below(scores: Mapping[int, float], least: float, reason: str) -> dict[int, Drop]:
    return {place: Drop(reason, f"{score:g}") for place, score in scores.items() if score < least}


def build(entry: ScoreEntry, seed: int, scorer: Scorer | None = None) -> Score:
    """Return the step.

    Args:
        scorer: of `entry.scorer`, which the package `reward` builds.
    """
    return Score(entry, scorer)
