"""Items for people: prompts with their answers, from a label run or a file of rankings."""

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignment.calls.store import CallStore
from alignment.config.documents import read_bytes
from alignment.config.schema import DatasetEntry
from alignment.data.answers import is_empty
from alignment.data.columns import refuse_unused
from alignment.data.load import load_answers, load_single_answers
from alignment.data.rows import DESIRABLE, POLICIES, Prompt, Ranking
from alignment.data.sampled import of_answers
from alignment.data.source_rows import OnBadRow
from alignment.errors import AlignmentError, DataError, RecipeError
from alignment.json_lines import read_ours
from alignment.manifest import read_manifest
from alignment.run.directory import PEOPLE, THUMBS
from alignment.run.files import text_hash

Ask = Literal["rank", "pairs", "thumbs"]
STORE = "calls.sqlite"
ANSWERS = "answers.jsonl"  # of an evaluation
LABELS = ("labels.jsonl", "rejected.jsonl")  # of a run that finished, and of one that missed its gate
OF_JUDGES = frozenset(
    {"judge", "prompt_hash", "source", "annotator", DESIRABLE}
)  # of the verdicts, which an item does not include


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt and the answers that a person ranks, or the one that a person finds good or bad."""

    key: str  # of prompt and answers
    prompt: Prompt
    responses: list[str]
    provenance: dict[str, Any]  # of the answers, without any judge's verdicts

    @property
    def distinct(self) -> list[int]:
        """Indices of the distinct answers; equal answers are shown once and are a tie."""
        first: dict[str, int] = {}
        for index, response in enumerate(self.responses):
            first.setdefault(response, index)
        return list(first.values())


@dataclass(frozen=True, slots=True)
class Place:
    """Paths of a run's items, the store and people's labels."""

    source: Path
    store: Path
    output: Path


def place_of(run: Path, output: Path | None, ask: Ask = "rank") -> Place:
    """Return the store and the output of RUN: inside a folder, beside a file; thumbs have an output of their own.

    Raises: DataError if RUN does not exist.
    """
    name = THUMBS if ask == "thumbs" else PEOPLE
    if run.is_dir():
        return Place(run, run / STORE, output or run / name)
    if not run.is_file():
        raise DataError(f"{run} does not exist. Give the folder of a label run, or a file of rankings.")
    stem = run.name.removesuffix(".gz").rpartition(".")[0]
    return Place(run, run.with_name(f"{stem}.{STORE}"), output or run.with_name(f"{stem}.{name}"))


def load_items(
    place: Place,
    *,
    ask: Ask,
    limit: int | None = None,
    entry: Mapping[str, Any] | None = None,
    on_bad_row: OnBadRow = "stop",
) -> list[Item]:
    """Return the distinct items, without those whose answers are all equal; for thumbs, each answer is one.

    Args:
        entry: keys of a recipe's data set entry.
    Raises: DataError if nothing is left to ask.
    """
    items: dict[str, Item] = {}
    for ranking in _rankings(place, entry or {}, on_bad_row, ask):
        for prompt, responses, provenance in _questions(ranking, ask):
            item = Item(key_of(prompt, responses), prompt, responses, provenance)
            if len(item.distinct) > 1 or ask == "thumbs":
                items.setdefault(item.key, item)
    if not items:
        none = "no answer has a text" if ask == "thumbs" else "no prompt has two answers that differ"
        raise DataError(f"{place.source}: there is nothing to {'judge' if ask == 'thumbs' else 'compare'}; {none}.")
    return list(items.values())[:limit]


def key_of(prompt: Prompt, responses: list[str]) -> str:
    """Return the hash of an item's prompt and answers."""
    return hashlib.sha256(json.dumps([prompt, responses]).encode()).hexdigest()[:20]


def _questions(ranking: Ranking, ask: Ask) -> list[tuple[Prompt, list[str], dict[str, Any]]]:
    provenance = {name: value for name, value in ranking.provenance.items() if name not in OF_JUDGES}
    if ask == "rank":
        return [(ranking.prompt, ranking.responses, provenance)]
    if ask == "thumbs":
        return [
            (ranking.prompt, [text], {**provenance, **of_answers(provenance, (place,))})
            for place, text in enumerate(ranking.responses)
            if not is_empty(text)
        ]
    ends = [(pair.first, pair.second) for pair in ranking.pairs]
    ends = ends or list(itertools.combinations(range(len(ranking.responses)), 2))
    return [
        (
            ranking.prompt,
            [ranking.responses[first], ranking.responses[second]],
            {**provenance, **of_answers(provenance, (first, second))},
        )
        for first, second in ends
    ]


def _rankings(place: Place, keys: Mapping[str, Any], on_bad_row: OnBadRow, ask: Ask) -> list[Ranking]:
    if (answers := evaluated(place.source)) is not None:
        refuse_unused(keys, f"{place.source} is an evaluation, whose answers have one layout")
        return _of_policies(answers)
    source = next((place.source / name for name in LABELS if (place.source / name).is_file()), place.source)
    if source.is_dir() and place.store.is_file():
        refuse_unused(keys, f"{place.source} is a label run that was interrupted before its labels were written")
        return _sampled(place)
    entry = DatasetEntry(path=str(source), **keys)
    load = load_single_answers if ask == "thumbs" else load_answers
    return load([entry], on_bad_row=on_bad_row, seed=0).rows


def evaluated(source: Path) -> Path | None:
    """Return the answers of an evaluation's folder, or the file itself; None if a path is no evaluation."""
    file = source / ANSWERS if source.is_dir() else source
    return file if file.name == ANSWERS and file.is_file() else None


def _of_policies(file: Path) -> list[Ranking]:
    """Return the answers of every policy to each prompt of an evaluation, with the policies' names.

    Raises: DataError if a row is not one of an evaluation.
    """
    found = []
    for number, row in enumerate(read_ours(file), 1):
        answers, stopped = row.get("answers"), row.get("stopped") or {}
        if (
            "prompt" not in row
            or not isinstance(answers, dict)
            or not all(isinstance(a, str) for a in answers.values())
        ):
            raise DataError(f"{file}:{number}: is not a row of an evaluation, which has prompt, and answers by policy.")
        ended = {"stopped": [bool(stopped.get(name, True)) for name in answers]} if stopped else {}
        subset = {"subset": row["subset"]} if row.get("subset") else {}
        found.append(Ranking(row["prompt"], list(answers.values()), [], {POLICIES: list(answers), **ended, **subset}))
    return found


def _sampled(place: Place) -> list[Ranking]:
    """Return the answers of a label run that was interrupted before its labels were written."""
    with CallStore(place.store) as store:
        samples = store.samples()
    policy = read_manifest(place.source).get("policy")
    return [
        Ranking(
            sample.prompt,
            sample.responses,
            [],
            {**({"policy": policy} if policy else {}), **sample.of_answers()},
        )
        for sample in samples.values()
    ]


def read_guidelines(path: Path | None) -> tuple[str, str]:
    """Return the guidelines and their hash; both are "" without a file."""
    if path is None:
        return "", ""
    try:
        text = read_bytes(str(path), "text").decode("utf-8").strip()
    except RecipeError as error:
        raise AlignmentError(f"--guidelines {error}.") from None
    except UnicodeDecodeError as error:
        raise AlignmentError(f"--guidelines {path}: is not UTF-8 text.") from error
    return text, text_hash(text)
